"""Every figure and table of the AdamNODE paper: settings, table, picture and verdict, one file each."""
