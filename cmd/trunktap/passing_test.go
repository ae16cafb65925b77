package main

import (
	"testing"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/sip"
)

// TestStructuralHeaders holds what the configuration refuses to what signalling does.
func TestStructuralHeaders(t *testing.T) {
	for _, name := range config.StructuralHeaders {
		if sip.EditableHeader(name) == nil {
			t.Errorf("%s may be edited, the configuration says it may not", name)
		}
	}
	for _, name := range []string{"User-Agent", "Server", "X-Y", "Supported", "k", "Subject", "s", "P-Asserted-Identity"} {
		if err := sip.EditableHeader(name); err != nil {
			t.Errorf("%s %v", name, err)
		}
	}
}
