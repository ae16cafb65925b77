package service

import "context"

// Caller makes the requests of one source of keys: within the limits of seal.KEK,
// bounded in number and time, and none after Close. Safe for concurrent use.
type Caller struct {
	attempts Attempts
	door     Door
}

// NewCaller returns an open Caller.
func NewCaller(a Attempts) *Caller { return &Caller{attempts: a} }

// Wrap is the frame of seal.KEK's Wrap; once is one request.
func (c *Caller) Wrap(ctx context.Context, plaintext, aad []byte, once func(context.Context) (name string, wrapped []byte, err error)) (name string, wrapped []byte, err error) {
	if err := CheckWrap(plaintext, aad); err != nil {
		return "", nil, err
	}
	err = c.ask(ctx, c.attempts, "wrap data key", func(ctx context.Context) (err error) {
		name, wrapped, err = once(ctx)
		return err
	})
	if err != nil {
		return "", nil, err
	}
	return name, wrapped, nil
}

// Unwrap is the frame of seal.KEK's Unwrap; once is one request.
func (c *Caller) Unwrap(ctx context.Context, name string, wrapped, aad []byte, once func(context.Context) ([]byte, error)) (plaintext []byte, err error) {
	if err := CheckUnwrap(name, wrapped, aad); err != nil {
		return nil, err
	}
	err = c.ask(ctx, c.attempts, "unwrap data key", func(ctx context.Context) (err error) {
		plaintext, err = once(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return plaintext, nil
}

// Once makes a request that is not made again: whether one that was not answered
// had an effect cannot be told.
func (c *Caller) Once(ctx context.Context, what string, once func(context.Context) error) error {
	a := c.attempts
	a.Tries = 1
	return c.ask(ctx, a, what, once)
}

func (c *Caller) ask(ctx context.Context, a Attempts, what string, once func(context.Context) error) error {
	ctx, leave, err := c.door.Enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return a.Do(ctx, what, once)
}

// Close ends the requests that are under way and waits for them. True the first time.
func (c *Caller) Close() bool { return c.door.Close() }
