package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/openbao/openbao/api/v2"

	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

// Times of the owner of the token.
const (
	renewAgain = 15 * time.Second // after a renewal that failed
	renewMin   = time.Second
	recheck    = 5 * time.Minute // of a token that needs no renewal
)

// login keeps a token that is valid. Its owner renews it at two thirds of its
// life, and logs in again when it cannot be renewed.
type login struct {
	cfg    Config
	client *api.Client

	turns sync.Mutex // held during a login; before mu

	mu    sync.Mutex // guards the following
	token string
	until time.Time // zero: does not end
	lease time.Duration
	renew bool

	stop  context.CancelFunc
	ended chan struct{}
}

func (l *login) start() {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop, l.ended = cancel, make(chan struct{})
	go func() {
		defer close(l.ended)
		wait := l.next(nil)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = l.next(l.keep(ctx))
		}
	}()
}

func (l *login) close() {
	l.stop()
	<-l.ended
}

// next tells when to look at the token again.
func (l *login) next(err error) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		return renewAgain
	case l.token == "" || l.until.IsZero():
		return recheck
	}
	return max(renewMin, time.Until(l.until)-l.lease/3)
}

// keep renews the token, or gets another.
func (l *login) keep(ctx context.Context) error {
	l.mu.Lock()
	token, renew, due := l.token, l.renew, !l.until.IsZero() && time.Until(l.until) <= l.lease/3
	l.mu.Unlock()
	if token == "" || !due {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Attempts.Each())
	defer cancel()
	if renew {
		s, err := l.write(ctx, token, "auth/token/renew-self", map[string]any{})
		if err == nil && s.Auth != nil && time.Duration(s.Auth.LeaseDuration)*time.Second > l.left()/2 {
			l.take(s.Auth.ClientToken, s.Auth.LeaseDuration, s.Auth.Renewable)
			return nil
		}
	}
	_, err := l.again(ctx, token)
	return err
}

func (l *login) left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Until(l.until)
}

// current returns the token, logged in if there is none.
func (l *login) current(ctx context.Context) (string, error) {
	l.mu.Lock()
	token, over := l.token, !l.until.IsZero() && time.Now().After(l.until)
	l.mu.Unlock()
	if token != "" && !over {
		return token, nil
	}
	return l.again(ctx, token)
}

// again replaces the token that was, unless another call has done so.
func (l *login) again(ctx context.Context, was string) (string, error) {
	l.turns.Lock()
	defer l.turns.Unlock()
	l.mu.Lock()
	now := l.token
	l.mu.Unlock()
	if now != was {
		return now, nil
	}
	if err := l.enter(ctx); err != nil {
		return "", fmt.Errorf("log in by %s: %w", l.cfg.Auth, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.token, nil
}

// enter gets a token.
func (l *login) enter(ctx context.Context) error {
	if l.cfg.Auth == AuthToken {
		return l.fromFile(ctx)
	}
	in, err := l.credentials()
	if err != nil {
		return fmt.Errorf("%w: %w", seal.ErrRevoked, err)
	}
	s, err := l.write(ctx, "", "auth/"+l.cfg.authMount()+"/login", in)
	if err != nil {
		return err
	}
	if s.Auth == nil || s.Auth.ClientToken == "" {
		return fmt.Errorf("%w: the server gave no token", seal.ErrRevoked)
	}
	l.take(s.Auth.ClientToken, s.Auth.LeaseDuration, s.Auth.Renewable)
	return nil
}

// fromFile reads the token and asks how long it is valid.
func (l *login) fromFile(ctx context.Context) error {
	b, err := service.ReadSecret(l.cfg.TokenFile)
	if err != nil {
		return fmt.Errorf("%w: token_file: %w", seal.ErrRevoked, err)
	}
	s, err := l.read(ctx, string(b), "auth/token/lookup-self")
	if errors.Is(err, errDenied) {
		return fmt.Errorf("%w: the server refuses the token of %s (write a valid one into it)", seal.ErrRevoked, l.cfg.TokenFile)
	}
	if err != nil {
		return err
	}
	ttl, _ := s.Data["ttl"].(json.Number)
	seconds, err := ttl.Int64()
	if err != nil {
		seconds = 0 // does not say: it does not end
	}
	renewable, _ := s.Data["renewable"].(bool)
	l.take(string(b), int(seconds), renewable)
	return nil
}

func (l *login) take(token string, seconds int, renewable bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token, l.lease, l.renew, l.until = token, time.Duration(seconds)*time.Second, renewable, time.Time{}
	if seconds > 0 {
		l.until = time.Now().Add(l.lease)
	}
}

// credentials are what the method wants.
func (l *login) credentials() (map[string]any, error) {
	switch l.cfg.Auth {
	case AuthAppRole:
		b, err := service.ReadSecret(l.cfg.SecretID)
		if err != nil {
			return nil, fmt.Errorf("secret_id_file: %w", err)
		}
		return map[string]any{"role_id": l.cfg.RoleID, "secret_id": string(b)}, nil
	case AuthKubernetes:
		b, err := service.ReadSecret(l.cfg.jwtFile())
		if err != nil {
			return nil, fmt.Errorf("jwt_file: %w", err)
		}
		return map[string]any{"role": l.cfg.Role, "jwt": string(b)}, nil
	}
	if l.cfg.Role == "" {
		return map[string]any{}, nil
	}
	return map[string]any{"name": l.cfg.Role}, nil
}

// write sends a request with that token; "" for none.
func (l *login) write(ctx context.Context, token, path string, in map[string]any) (*api.Secret, error) {
	c, err := l.with(token)
	if err != nil {
		return nil, err
	}
	s, err := c.Logical().WriteWithContext(ctx, path, in)
	return answer(s, err)
}

func (l *login) read(ctx context.Context, token, path string) (*api.Secret, error) {
	c, err := l.with(token)
	if err != nil {
		return nil, err
	}
	s, err := c.Logical().ReadWithContext(ctx, path)
	return answer(s, err)
}

func (l *login) with(token string) (*api.Client, error) {
	c, err := l.client.Clone()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", seal.ErrUnreachable, err)
	}
	if l.cfg.Namespace != "" {
		c.SetNamespace(strings.Trim(l.cfg.Namespace, "/"))
	}
	c.SetToken(token)
	return c, nil
}

func answer(s *api.Secret, err error) (*api.Secret, error) {
	if err != nil {
		return nil, class(err)
	}
	if s == nil {
		s = &api.Secret{} // 204
	}
	return s, nil
}
