package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/suppress"
	"github.com/trunktap/trunktap/suppress/feed"
	"github.com/trunktap/trunktap/suppress/feed/ami"
	"github.com/trunktap/trunktap/suppress/feed/esl"
	"github.com/trunktap/trunktap/suppress/feed/nats"
)

// secretBytesMax bounds a file with a password.
const secretBytesMax = 4096

// newFeeds makes the sources of signals that the configuration names. The error
// says which of them lack something, such as the file with their secret: calls
// do not wait for it, so these sources are among the others and begin once it is there.
func newFeeds(cfg *config.Config, log *slog.Logger) ([]feed.Source, error) {
	var out []feed.Source
	var errs []error
	add := func(what, name string, begin func() (feed.Source, error)) {
		s, err := begin()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
			s = newLateFeed(name, begin, err)
		}
		out = append(out, s)
	}
	for i := range cfg.Signals.AMI {
		c := &cfg.Signals.AMI[i]
		add(fmt.Sprintf("signals.ami[%d]", i), "ami:"+c.Name, func() (feed.Source, error) { return newAMI(c, log) })
	}
	for i := range cfg.Signals.ESL {
		c := &cfg.Signals.ESL[i]
		add(fmt.Sprintf("signals.esl[%d]", i), "esl:"+c.Name, func() (feed.Source, error) { return newESL(c, log) })
	}
	if c := &cfg.Signals.NATS; len(c.URLs) > 0 {
		add("signals.nats", "nats:"+c.Name, func() (feed.Source, error) { return newNATS(c, log) })
	}
	return out, errors.Join(errs...)
}

// lateFeedRetry is how often a source that lacks something looks for it.
const lateFeedRetry = 10 * time.Second

// lateFeed is a source that lacked something at the start.
type lateFeed struct {
	name  string
	begin func() (feed.Source, error)

	mu     sync.Mutex
	source feed.Source // nil: it still does
	status feed.Status // until then
}

func newLateFeed(name string, begin func() (feed.Source, error), err error) *lateFeed {
	return &lateFeed{name: name, begin: begin, status: feed.Status{Since: time.Now(), LastError: err.Error()}}
}

// Name implements feed.Source.
func (l *lateFeed) Name() string { return l.name }

// Run implements feed.Source.
func (l *lateFeed) Run(ctx context.Context, emit func(suppress.Signal)) error {
	t := time.NewTicker(lateFeedRetry)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		s, err := l.begin()
		l.mu.Lock()
		l.source = s
		if err != nil {
			l.source, l.status.LastError = nil, err.Error()
		}
		l.mu.Unlock()
		if err == nil {
			return s.Run(ctx, emit)
		}
	}
}

// Status implements feed.Source.
func (l *lateFeed) Status() feed.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.source != nil {
		return l.source.Status()
	}
	return l.status
}

func newAMI(c *config.AMI, log *slog.Logger) (feed.Source, error) {
	secret, err := readSecret(c.SecretFile, log)
	if err != nil {
		return nil, err
	}
	conf, err := clientTLS(c.TLS, c.Address)
	if err != nil {
		return nil, err
	}
	return ami.New(ami.Config{
		Name: "ami:" + c.Name, Addr: c.Address, TLS: conf, MD5: c.Challenge, Username: c.Username, Secret: secret,
		Trunks: c.Trunks, Stations: c.Stations, CallIDVariables: c.CallIDVariables, Users: c.Users, MemberNames: c.MemberNames,
		QueueAgentsOnly: c.QueueAgentsOnly, SpyRole: suppress.Role(c.SpyRole), Log: log,
	})
}

func newESL(c *config.ESL, log *slog.Logger) (feed.Source, error) {
	password, err := readSecret(c.PasswordFile, log)
	if err != nil {
		return nil, err
	}
	return esl.New(esl.Config{
		Name: c.Name, Address: c.Address, User: c.User, Password: password,
		Trunks: esl.Trunks{Gateways: c.Gateways, Profiles: c.Profiles, Prefixes: c.Networks}, Log: log,
	})
}

func newNATS(c *config.NATS, log *slog.Logger) (feed.Source, error) {
	n := nats.Config{
		Name: c.Name, URLs: c.URLs, Subjects: c.Subjects, Stream: c.Stream, Durable: c.Durable, MaxAge: c.MaxAge,
		CredentialsFile: c.CredentialsFile, User: c.User, Log: log,
	}
	var err error
	if c.TokenFile != "" {
		if n.Token, err = readSecret(c.TokenFile, log); err != nil {
			return nil, err
		}
	}
	if c.PasswordFile != "" {
		if n.Password, err = readSecret(c.PasswordFile, log); err != nil {
			return nil, err
		}
	}
	if c.CAFile != "" {
		if n.TLS, err = authorityTLS(c.CAFile); err != nil {
			return nil, err
		}
	}
	return nats.New(n)
}

// readSecret reads a file of one line. Others that can read it are worth a warning.
func readSecret(path string, log *slog.Logger) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Size() > secretBytesMax {
		return "", fmt.Errorf("%s has %d bytes, a secret is one line of at most %d", path, info.Size(), secretBytesMax)
	}
	if info.Mode().Perm()&0o077 != 0 {
		log.Warn("a secret can be read by others; chmod 600", "file", path, "mode", info.Mode().Perm().String())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(b), "\r\n")
	if secret == "" || strings.ContainsAny(secret, "\r\n") {
		return "", fmt.Errorf("%s is not one line with a secret", path)
	}
	return secret, nil
}

// clientTLS is nil without TLS.
func clientTLS(c config.TLS, address string) (*tls.Config, error) {
	if !c.Enabled {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		var err error
		if conf, err = authorityTLS(c.CAFile); err != nil {
			return nil, err
		}
	}
	conf.ServerName = c.ServerName
	if conf.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		conf.ServerName = host
	}
	return conf, nil
}

func authorityTLS(path string) (*tls.Config, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", path)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, nil
}

// startFeeds runs the sources of signals until the daemon stops. What one of
// them lacks is no reason to take no calls.
func (d *daemon) startFeeds(context.Context) error {
	var err error
	if d.feeds, err = newFeeds(d.cfg, d.log); err != nil {
		d.log.Error("sources of signals that wait for what they lack", "error", err, "retry", lateFeedRetry)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, s := range d.feeds {
		running.Go(func() {
			if err := s.Run(ctx, func(sig suppress.Signal) { d.rec.Post(sig) }); err != nil {
				d.log.Error("a source of signals has ended", "source", s.Name(), "error", err)
			}
		})
	}
	d.closers = append(d.closers, func() error {
		cancel()
		running.Wait()
		return nil
	})
	return nil
}
