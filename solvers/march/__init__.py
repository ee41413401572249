"""From attempt to attempt: over one clock on the host, or over any clocks in tensors."""
