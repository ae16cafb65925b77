package config

func (d *decoder) checkSignals(*Config) {}
