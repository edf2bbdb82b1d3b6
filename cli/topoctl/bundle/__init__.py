"""What a bug report needs, in one file, without secrets."""
