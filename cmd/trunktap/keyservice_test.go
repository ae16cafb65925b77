package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/pkcs11/softhsm"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// What a block lacks is named with its key, all at once.
func TestKeyServiceFaults(t *testing.T) {
	for mode, wants := range map[string][]string{
		"pkcs11":  {"keys.pkcs11.module", "keys.pkcs11.token_label", "keys.pkcs11.pin_file", "keys.pkcs11.label"},
		"vault":   {"keys.vault.address", "keys.vault.key", "keys.vault.auth"},
		"remote":  {"keys.remote.url", "keys.remote.client", "keys.remote.key_file", "keys.remote.server_keys"},
		"aws-kms": {"keys.aws-kms.region", "keys.aws-kms.key"},
		"gcp-kms": {"keys.gcp-kms.key"},
		"azure":   {"keys.azure.url", "keys.azure.key"},
		"local":   {"no key service"},
	} {
		_, err := openKEK(t.Context(), &config.Keys{}, mode)
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", mode, err, want)
			}
		}
	}
}

// Keys that the configuration names are opened and used.
func TestKeyServices(t *testing.T) {
	token := softhsm.New(t)
	keys := &config.Keys{Mode: "pkcs11", PKCS11: config.KeysPKCS11{Module: softhsm.Module, TokenLabel: token.Label, PINFile: token.PINFile, Label: "trunktap", Create: true}}
	s, err := openKEK(t.Context(), keys, "pkcs11")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.KEK.Close(); err != nil {
			t.Error(err)
		}
	}()
	name, wrapped, err := s.KEK.Wrap(t.Context(), make([]byte, 32), []byte("recording"))
	if err != nil || s.Mode != "pkcs11" || !strings.HasPrefix(name, "trunktap.v1:") {
		t.Fatalf("%s %s %v", s.Mode, name, err)
	}
	if _, err := s.KEK.Unwrap(t.Context(), name, wrapped, []byte("recording")); err != nil {
		t.Error(err)
	}
	if _, ok := s.KEK.(seal.Rotator); !ok {
		t.Error("cannot be rotated")
	}
}

// An archive seals with keys of an HSM, and another process opens them.
func TestArchiveWithKeyService(t *testing.T) {
	token, dir := softhsm.New(t), t.TempDir()
	cfg := &config.Config{Keys: config.Keys{
		Mode: "pkcs11", Tries: 1, Timeout: 5 * time.Second, File: filepath.Join(dir, "keys.json"),
		PKCS11: config.KeysPKCS11{Module: softhsm.Module, TokenLabel: token.Label, PINFile: token.PINFile, Label: "trunktap", Create: true},
	}}
	seals := func(readOnly bool) *seal.Envelope {
		s, err := sealing(t.Context(), cfg, readOnly, nil)(vfs.OS{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s.(*seal.Envelope)
	}
	writer := seals(false)
	k, err := writer.NewKey(t.Context(), "rec-1")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Seal([]byte("audio"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := k.Wrapped()
	k.Close()
	if err := writer.Close(); err != nil {
		t.Error(err)
	}
	reader := seals(true)
	defer func() {
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	}()
	if !strings.HasPrefix(w.KEK, "pkcs11:trunktap.v1:") {
		t.Errorf("wrapped by %s", w.KEK)
	}
	k, err = reader.OpenKey(t.Context(), "rec-1", w)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if b, err := k.Open(sealed, nil); err != nil || string(b) != "audio" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Stat(cfg.Keys.File); err == nil {
		t.Error("a local key file was made beside the HSM")
	}
}

// What a block lacks is told with its place, by check and by the daemon alike,
// beside whatever else is wrong.
func TestKeyServiceFaultsHavePlaces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trunktap.yaml")
	mustWrite(t, file, `trunks: [{external: {next_hops: ["sip:192.0.2.1"]}, internal: {next_hops: ["sip:192.0.2.2"]}}]
keys:
  mode: vault
  vault:
    address: http://vault.example
    auth: approle
  former: [remote]
log: {level: loud}
`)
	for _, args := range [][]string{{"check", "-c", file}, {"serve", "-c", file}} {
		out := keysCommand(t, exitUsage, args...)
		for _, want := range []string{
			file + ":5:14: keys.vault.address: ", file + ":5:5: keys.vault.role_id: ", file + ":3:3: keys.remote.url: ", file + ":8:14: log.level: ",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%v: %s\nlacks %s", args, out, want)
			}
		}
	}
}
