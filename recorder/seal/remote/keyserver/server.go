// Package keyserver is a key manager for customers who run their own: it wraps and
// unwraps data keys for the clients that its configuration names, and writes down
// who asked for which recording's key; ../PROTOCOL.md.
package keyserver

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/remote"
)

// Limits of the server.
const (
	requestsMax   = 128 // at once; more wait for nobody: they are refused
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	keysTimeout   = 10 * time.Second // of the keys behind the server
	stopWait      = 10 * time.Second
	headerBytes   = 16 << 10
)

// Server answers requests. Make one with New.
type Server struct {
	path   string
	log    *slog.Logger
	now    func() time.Time
	listen net.Listener
	audit  *audit
	nonces nonces
	slots  chan struct{}

	state atomic.Pointer[state]
}

// state is one reading of the configuration; it never changes.
type state struct {
	cfg     *Config
	keys    seal.KEK
	signing ed25519.PrivateKey
	tls     *tls.Config
	clients map[string]*client
	revoked map[string]bool
}

type client struct {
	ClientConfig
	keys  []ed25519.PublicKey
	limit *rate.Limiter
}

// New reads the configuration and opens the port, the keyset and the audit log.
func New(path string, log *slog.Logger) (*Server, error) {
	s := &Server{path: path, log: log, now: time.Now, slots: make(chan struct{}, requestsMax)}
	st, err := s.read(nil)
	if err != nil {
		return nil, err
	}
	if s.audit, err = openAudit(st.cfg.at(st.cfg.Audit)); err != nil {
		return nil, err
	}
	if s.listen, err = net.Listen("tcp", st.cfg.Listen); err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), s.audit.close())
	}
	s.state.Store(st)
	return s, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listen.Addr() }

// read makes a state of the configuration file; clients keep the limits that they
// have in old.
func (s *Server) read(old *state) (*state, error) {
	cfg, err := Load(s.path)
	if err != nil {
		return nil, err
	}
	st := &state{cfg: cfg, clients: map[string]*client{}, revoked: map[string]bool{}}
	if st.signing, err = remote.ReadPrivateKey(cfg.at(cfg.SigningKey)); err != nil {
		return nil, fmt.Errorf("signing_key: %w", err)
	}
	if st.tls, err = cfg.tls(); err != nil {
		return nil, err
	}
	for i, c := range cfg.Clients {
		keys, err := cfg.publicKeys(c)
		if err != nil {
			return nil, fmt.Errorf("clients[%d].public_key: %w", i, err)
		}
		perSecond := c.Rate
		if perSecond == 0 {
			perSecond = rateDefault
		}
		cl := &client{ClientConfig: c, keys: keys, limit: rate.NewLimiter(rate.Limit(perSecond), int(2*perSecond)+1)}
		if old != nil && old.clients[c.Name] != nil && old.clients[c.Name].Rate == c.Rate {
			cl.limit = old.clients[c.Name].limit
		}
		st.clients[c.Name] = cl
	}
	for _, k := range cfg.RevokedKeys {
		st.revoked[k] = true
	}
	local, err := seal.OpenLocal(seal.LocalConfig{Path: cfg.at(cfg.Keyset), ReadOnly: old != nil})
	if err != nil {
		return nil, fmt.Errorf("keyset: %w", err)
	}
	st.keys = local.KEK()
	return st, nil
}

// Reload reads the configuration, the keyset and the certificates again. What was
// revoked is refused from its return on; when something is wrong nothing changes.
// The address and the audit log stay what they were.
func (s *Server) Reload() error {
	st, err := s.read(s.state.Load())
	outcome := outcomeOK
	if err == nil {
		s.state.Store(st)
	} else {
		outcome = "refused"
	}
	return errors.Join(err, s.audit.write(Line{Time: s.now().UTC(), Op: "reload", Outcome: outcome}))
}

// Serve answers until ctx ends, then lets requests finish. Each value of reload
// has the configuration read again.
func (s *Server) Serve(ctx context.Context, reload <-chan struct{}) error {
	h := &http.Server{
		Handler: s, ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, WriteTimeout: bodyTimeout + keysTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytes, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	t := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.state.Load().tls, nil },
	}
	if err := s.audit.write(Line{Time: s.now().UTC(), Op: "start", Outcome: outcomeOK}); err != nil {
		return errors.Join(err, s.listen.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(tls.NewListener(s.listen, t)) }()
	for {
		select {
		case err := <-ended:
			return errors.Join(fmt.Errorf("serve: %w", err), s.audit.close())
		case <-reload:
			if err := s.Reload(); err != nil {
				s.log.Error("configuration not reloaded", "err", err)
				continue
			}
			s.log.Info("configuration reloaded")
		case <-ctx.Done():
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
			err := h.Shutdown(stop)
			cancel()
			<-ended //nolint:errcheck // that it was shut down
			return errors.Join(err, s.audit.write(Line{Time: s.now().UTC(), Op: "stop", Outcome: outcomeOK}), s.audit.close())
		}
	}
}
