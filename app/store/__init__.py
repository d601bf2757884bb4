"""Items: versioned JSON values under a namespace and a key."""
