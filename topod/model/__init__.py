"""What the words mean: plain frozen values, checked where they are made."""
