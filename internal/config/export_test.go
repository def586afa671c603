package config

// Keys returns the keys of all settings.
func Keys() []string { return allSettings }
