package main

import (
	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/sip"
)

// passing tells signalling what changes on the way through a trunk.
func passing(t *config.Trunk, to *sip.Trunk) {
	to.Hide = t.Identity == "hide"
}
