package main

import (
	"net/url"
	"os"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder/catalog"
)

func catalogOptions(cfg *config.Config) catalog.Options {
	c := &cfg.Catalog
	return catalog.Options{PasswordFile: c.PasswordFile, ConnsMax: c.ConnsMax, Timeout: c.Timeout, Country: c.Country}
}

// nodeName is what this node is called in what it records.
func nodeName(cfg *config.Config) string {
	if cfg.Catalog.Node != "" {
		return cfg.Catalog.Node
	}
	name, err := os.Hostname()
	if err != nil {
		return "" // it has none
	}
	return name
}

// shownURL is a URL without its password.
func shownURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Redacted()
}
