package config

// Keys lists the keys of all settings.
func Keys() []string { return allSettings }
