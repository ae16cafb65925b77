package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

// keysInitCmd makes the key file where the daemon does not dare to: beside
// recordings, which a lost one might have sealed.
type keysInitCmd struct{ configFlag }

// Run makes the file, unless it is there.
func (c *keysInitCmd) Run(e *env) (err error) {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	unlock, err := lock(cfg)
	if err != nil {
		return fmt.Errorf("%w: stop the daemon first", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if cfg.Keys.Mode != "local" {
		return fmt.Errorf("keys.mode is %s: only the keys of mode local lie in a file", cfg.Keys.Mode)
	}
	if _, err := os.Stat(cfg.Keys.File); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s is there", cfg.Keys.File), err)
	}
	keys, err := seal.OpenLocal(seal.LocalConfig{Path: cfg.Keys.File})
	if err != nil {
		return err
	}
	name, err := keys.ActiveKey(e.ctx)
	if err == nil {
		_, err = fmt.Fprintf(e.stdout, "%s is the active key, in %s: back that up, apart from the recordings\n", name, cfg.Keys.File)
	}
	return errors.Join(err, keys.Close())
}

// keyFiles says which files of the configured modes cannot be used here. Nobody is
// asked anything.
func keyFiles(k *config.Keys) error {
	var errs []error
	look := func(secret bool, key, name string) {
		if name == "" {
			return
		}
		var err error
		if secret {
			var b []byte
			b, err = service.ReadSecret(name)
			clear(b)
		} else {
			var f *os.File
			if f, err = os.Open(name); err == nil {
				err = f.Close()
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("keys.%s: %w", key, err))
		}
	}
	for _, mode := range append([]string{k.Mode}, k.Former...) {
		switch mode {
		case "pkcs11":
			look(false, "pkcs11.module", k.PKCS11.Module)
			look(true, "pkcs11.pin_file", k.PKCS11.PINFile)
		case "vault":
			v := &k.Vault
			look(false, "vault.ca_file", v.CAFile)
			look(false, "vault.cert_file", v.CertFile)
			look(false, "vault.cert_key", v.CertKey)
			look(true, "vault.token_file", v.TokenFile)
			look(true, "vault.secret_id_file", v.SecretID)
		case "remote":
			r := &k.Remote
			look(true, "remote.key_file", r.KeyFile)
			look(false, "remote.server_keys", r.ServerKeys)
			look(false, "remote.ca_file", r.CAFile)
			look(false, "remote.cert_file", r.CertFile)
			look(false, "remote.cert_key", r.CertKey)
		case "aws-kms":
			look(false, "aws-kms.credentials_file", k.AWS.CredentialsFile)
			look(false, "aws-kms.ca_file", k.AWS.CAFile)
		case "gcp-kms":
			look(false, "gcp-kms.credentials_file", k.GCP.CredentialsFile)
		case "azure":
			look(false, "azure.ca_file", k.Azure.CAFile)
		}
	}
	return errors.Join(errs...)
}

// probeKeys asks each configured key service to wrap and unwrap something, and says
// how it went.
func probeKeys(e *env, k *config.Keys) error {
	var errs []error
	for _, mode := range append([]string{k.Mode}, k.Former...) {
		if _, ok := keyServiceOf(k, mode); !ok {
			continue
		}
		name, err := probeKey(e.ctx, k, mode)
		if err == nil {
			_, err = fmt.Fprintf(e.stdout, "keys.%s: %s wraps and unwraps\n", mode, clean(name))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func probeKey(ctx context.Context, k *config.Keys, mode string) (name string, err error) {
	s, err := openKEK(ctx, k, mode)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.KEK.Close()) }()
	plain, bind := make([]byte, service.PlaintextBytesMin), []byte("trunktap probe 1\x00")
	_, _ = rand.Read(plain) // never fails
	name, wrapped, err := s.KEK.Wrap(ctx, plain, bind)
	if err != nil {
		return "", fmt.Errorf("keys.%s: %w", mode, err)
	}
	again, err := s.KEK.Unwrap(ctx, name, wrapped, bind)
	switch {
	case err != nil:
		return "", fmt.Errorf("keys.%s: %w", mode, err)
	case !bytes.Equal(plain, again):
		return "", fmt.Errorf("keys.%s: %s unwraps to something else", mode, name)
	}
	return name, nil
}
