"""Values to text: pure functions that know no socket, no clock and no terminal."""
