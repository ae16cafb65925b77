package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

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
func keyServiceOf(k *config.Keys, mode string) (keyService, bool) {
	tries := service.Attempts{Timeout: k.Timeout, Tries: k.Tries}
	switch mode {
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

// faults are those of a mode's block, by whole keys.
func (s keyService) faults(mode string) service.Faults {
	f := s.check()
	for i := range f {
		if f[i].Key == "timeout" || f[i].Key == "tries" {
			f[i].Key = "keys." + f[i].Key // common to all
			continue
		}
		f[i].Key = "keys." + mode + "." + f[i].Key
	}
	return f
}

// keyChecks finds what the blocks of the configured modes lack.
func keyChecks(c *config.Config, fault func(key, problem, allowed string)) {
	for _, mode := range append([]string{c.Keys.Mode}, c.Keys.Former...) {
		if s, ok := keyServiceOf(&c.Keys, mode); ok {
			for _, f := range s.faults(mode) {
				fault(f.Key, f.Text, "")
			}
		}
	}
}

// openKEK opens the keys of the service of a mode. Every fault of its block is
// named at once.
func openKEK(ctx context.Context, k *config.Keys, mode string) (seal.Source, error) {
	s, ok := keyServiceOf(k, mode)
	if !ok {
		return seal.Source{}, fmt.Errorf("keys.mode: %q is no key service", mode)
	}
	if err := s.faults(mode).Err(); err != nil {
		return seal.Source{}, err
	}
	kek, err := s.open(ctx)
	if err != nil {
		return seal.Source{}, fmt.Errorf("keys.%s: %w", mode, err)
	}
	return seal.Source{Mode: mode, KEK: kek}, nil
}

// caching is what the configuration says of keys that a service has given.
func caching(k *config.Keys) seal.Caching {
	// All tries of a request, with the pauses between them.
	patience := time.Duration(k.Tries)*(k.Timeout+keyPauseMax) - keyPauseMax
	return seal.Caching{
		Renew: k.Cache.Renew, For: k.Cache.For, Check: k.Cache.Check,
		OnUnreachable: seal.Policy(k.OnUnreachable), OnRevoked: seal.Policy(k.OnRevoked),
		Timeout: max(patience, 0), RetryMax: min(keyRetryMax, k.Cache.Check), // 0: its own
	}
}

// keyRetryMax is the longest pause between two requests to a service that is away.
const keyRetryMax = 30 * time.Second

// keyPauseMax is the longest pause between two tries of a request.
const keyPauseMax = 3 * time.Second

// sealing opens the keys of the configured mode for an archive, and those of modes
// that were configured before. Tell hears what becomes of them.
func sealing(ctx context.Context, cfg *config.Config, readOnly bool, tell func(string, map[string]string)) func(vfs.FS, func() error) (recorder.Sealer, error) {
	return func(fsys vfs.FS, mayMake func() error) (_ recorder.Sealer, err error) {
		k := &cfg.Keys
		e := seal.EnvelopeConfig{Tell: tell, Caching: caching(k)}
		if e.Former, err = formerKeys(ctx, k, fsys); err != nil {
			return nil, err
		}
		switch k.Mode {
		case "local":
			return seal.OpenLocal(seal.LocalConfig{Path: k.File, FS: fsys, ReadOnly: readOnly, MayMake: mayMake, Former: e.Former, Tell: tell})
		case config.ModeNone:
			e.Active, e.Direct = seal.Source{Mode: seal.ModeNone, KEK: seal.None{}}, true
		default:
			if e.Active, err = openKEK(ctx, k, k.Mode); err != nil {
				return nil, errors.Join(err, closeKeys(e.Former))
			}
		}
		s := seal.NewEnvelope(e)
		if !readOnly {
			s.Start(ctx)
		}
		return s, nil
	}
}

// formerKeys opens the keys of modes that were configured before. Those of mode
// local are among them when their file is there.
func formerKeys(ctx context.Context, k *config.Keys, fsys vfs.FS) (list []seal.Source, err error) {
	for _, mode := range append(slices.Clone(k.Former), "local") {
		var s seal.Source
		switch {
		case mode == k.Mode || mode == "local" && slices.ContainsFunc(list, func(o seal.Source) bool { return o.Mode == "" }):
			continue
		case mode == config.ModeNone:
			s = seal.Source{Mode: seal.ModeNone, KEK: seal.None{}}
		case mode == "local":
			var l *seal.Local
			l, err = seal.OpenLocal(seal.LocalConfig{Path: k.File, FS: fsys, ReadOnly: true})
			if errors.Is(err, fs.ErrNotExist) && !slices.Contains(k.Former, mode) {
				err = nil
				continue
			}
			if err == nil {
				s.KEK = l.KEK()
			}
		default:
			s, err = openKEK(ctx, k, mode)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("keys.former: %w", err), closeKeys(list))
		}
		list = append(list, s)
	}
	return list, nil
}

func closeKeys(list []seal.Source) (err error) {
	for _, s := range list {
		err = errors.Join(err, s.KEK.Close())
	}
	return err
}
