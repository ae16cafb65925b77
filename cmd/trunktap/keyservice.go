package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/awskms"
	"github.com/trunktap/trunktap/recorder/seal/azurekv"
	"github.com/trunktap/trunktap/recorder/seal/gcpkms"
	"github.com/trunktap/trunktap/recorder/seal/pkcs11"
	keyclient "github.com/trunktap/trunktap/recorder/seal/remote"
	"github.com/trunktap/trunktap/recorder/seal/service"
	"github.com/trunktap/trunktap/recorder/seal/vault"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// keyService is one mode of keys: what is wrong with its block, and how its keys
// are opened.
type keyService struct {
	check func() service.Faults
	open  func(context.Context) (seal.KEK, error)
}

// keyServiceOf returns the service of a mode; false: it needs none.
func keyServiceOf(k *config.Keys) (keyService, bool) {
	tries := service.Attempts{Timeout: k.Timeout, Tries: k.Tries}
	switch k.Mode {
	case "pkcs11":
		p := k.PKCS11
		c := pkcs11.Config{
			Module: p.Module, TokenLabel: p.TokenLabel, TokenSerial: p.TokenSerial, PINFile: p.PINFile, Label: p.Label, Create: p.Create,
			Mechanism: p.Mechanism, Sessions: p.Sessions, Refresh: p.Refresh, Attempts: tries,
		}
		return keyService{c.Check, func(ctx context.Context) (seal.KEK, error) { return orNil(pkcs11.Open(ctx, c)) }}, true
	case "vault":
		v := k.Vault
		c := vault.Config{
			Address: v.Address, Namespace: v.Namespace, Mount: v.Mount, Key: v.Key, CAFile: v.CAFile, CertFile: v.CertFile, CertKey: v.CertKey,
			Auth: v.Auth, AuthMount: v.AuthMount, TokenFile: v.TokenFile, RoleID: v.RoleID, SecretID: v.SecretID, Role: v.Role, JWTFile: v.JWTFile, Attempts: tries,
		}
		return keyService{c.Check, func(context.Context) (seal.KEK, error) { return orNil(vault.Open(c)) }}, true
	case "remote":
		r := k.Remote
		c := keyclient.Config{
			URL: r.URL, Client: r.Client, KeyFile: r.KeyFile, ServerKeys: r.ServerKeys, CAFile: r.CAFile, CertFile: r.CertFile, CertKey: r.CertKey, Attempts: tries,
		}
		return keyService{c.Check, func(context.Context) (seal.KEK, error) { return orNil(keyclient.Open(c)) }}, true
	case "aws-kms":
		a := k.AWS
		c := awskms.Config{Region: a.Region, Key: a.Key, Endpoint: a.Endpoint, Profile: a.Profile, CredentialsFile: a.CredentialsFile, CAFile: a.CAFile, Attempts: tries}
		return keyService{c.Check, func(ctx context.Context) (seal.KEK, error) { return orNil(awskms.Open(ctx, c)) }}, true
	case "gcp-kms":
		c := gcpkms.Config{Key: k.GCP.Key, Endpoint: k.GCP.Endpoint, CredentialsFile: k.GCP.CredentialsFile, Attempts: tries}
		return keyService{c.Check, func(ctx context.Context) (seal.KEK, error) { return orNil(gcpkms.Open(ctx, c)) }}, true
	case "azure":
		z := k.Azure
		c := azurekv.Config{URL: z.URL, Key: z.Key, Algorithm: z.Algorithm, ClientID: z.ClientID, CAFile: z.CAFile, Attempts: tries}
		return keyService{c.Check, func(context.Context) (seal.KEK, error) { return orNil(azurekv.Open(c)) }}, true
	}
	return keyService{}, false
}

// orNil keeps a nil pointer from becoming an interface that is not nil.
func orNil[K seal.KEK](k K, err error) (seal.KEK, error) {
	if err != nil {
		return nil, err
	}
	return k, nil
}

// openKEK opens the keys of the configured service. Every fault of its block is
// named at once.
func openKEK(ctx context.Context, k *config.Keys) (seal.Source, error) {
	s, ok := keyServiceOf(k)
	if !ok {
		return seal.Source{}, fmt.Errorf("keys.mode: %q is no key service", k.Mode)
	}
	f := s.check()
	for i := range f {
		f[i].Key = "keys." + k.Mode + "." + f[i].Key
	}
	if err := f.Err(); err != nil {
		return seal.Source{}, err
	}
	kek, err := s.open(ctx)
	if err != nil {
		return seal.Source{}, fmt.Errorf("keys.%s: %w", k.Mode, err)
	}
	return seal.Source{Mode: k.Mode, KEK: kek}, nil
}

// sealing opens the keys of a service for an archive. Keys of mode local, where
// there are any, open what was sealed before.
func sealing(ctx context.Context, cfg *config.Config, readOnly bool) func(vfs.FS, func() error) (recorder.Sealer, error) {
	return func(fsys vfs.FS, _ func() error) (recorder.Sealer, error) {
		active, err := openKEK(ctx, &cfg.Keys)
		if err != nil {
			return nil, err
		}
		e := seal.EnvelopeConfig{Active: active}
		switch former, err := seal.OpenLocal(seal.LocalConfig{Path: cfg.Keys.File, FS: fsys, ReadOnly: true}); {
		case err == nil:
			e.Former = []seal.Source{{KEK: former.KEK()}}
		case !errors.Is(err, fs.ErrNotExist):
			return nil, errors.Join(err, active.KEK.Close())
		}
		s := seal.NewEnvelope(e)
		if !readOnly {
			s.Start(ctx)
		}
		return s, nil
	}
}
