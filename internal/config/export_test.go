package config

import "reflect"

// Keys lists the keys of all settings.
func Keys() []string { return settings(reflect.TypeFor[Config](), "") }
