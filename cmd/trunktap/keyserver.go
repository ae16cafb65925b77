package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/trunktap/trunktap/recorder/seal/remote/keyserver"
)

type keyserverCmd struct {
	Config string `help:"Configuration file of the key server." placeholder:"FILE" required:"" short:"c"`
	Check  bool   `help:"Check the configuration file and end."`
}

// Run serves until it is interrupted; SIGHUP has the configuration, the keyset and
// the certificates read again.
func (c *keyserverCmd) Run(e *env) error {
	if _, err := keyserver.Load(c.Config); err != nil {
		return usageError{err}
	}
	if c.Check {
		_, err := fmt.Fprintf(e.stdout, "%s: fine\n", c.Config)
		return err
	}
	log := slog.New(slog.NewTextHandler(e.stderr, nil))
	s, err := keyserver.New(c.Config, log)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Config, err)
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	reload, ended := make(chan struct{}), make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case <-hangup:
			case <-ended:
				return
			}
			select {
			case reload <- struct{}{}:
			case <-ended:
				return
			}
		}
	}()
	log.Info("key server is up", "listen", s.Addr().String())
	return s.Serve(e.ctx, reload)
}
