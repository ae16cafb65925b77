package seal

import (
	"errors"
	"fmt"
	"time"
)

// Policy says what becomes of recordings when the key-encryption key is not at
// hand.
type Policy string

// Policies.
const (
	PolicyContinue Policy = "continue" // they go on under the intermediate key that is there, for Caching.For
	PolicyStop     Policy = "stop"     // none begins, and those that go on pause, at once
)

// Caching bounds what is kept of keys that a key service has given.
type Caching struct {
	Renew    time.Duration // after which an intermediate key is replaced; 0: 1 h
	KeysMax  int           // data keys after which it is replaced; 0: 10,000
	Check    time.Duration // how often the key service is asked whether it still opens it; 0: 1 min
	For      time.Duration // how long recording continues without an answer that the key may be used; 0: 24 h
	OpenMax  int           // intermediate keys that are kept open for reading; 0: 256
	OpenFor  time.Duration // how long; 0: 10 min
	Timeout  time.Duration // of one request to the key service; 0: 10 s
	RetryMax time.Duration // between two tries while it does not answer; 0: 30 s

	OnUnreachable Policy // "": continue
	OnRevoked     Policy // "": stop
}

func (c Caching) withDefaults() Caching {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&c.Renew, time.Hour)
	set(&c.Check, time.Minute)
	set(&c.For, 24*time.Hour)
	set(&c.OpenFor, 10*time.Minute)
	set(&c.Timeout, 10*time.Second)
	set(&c.RetryMax, 30*time.Second)
	if c.KeysMax == 0 {
		c.KeysMax = 10_000
	}
	if c.OpenMax == 0 {
		c.OpenMax = 256
	}
	if c.OnUnreachable == "" {
		c.OnUnreachable = PolicyContinue
	}
	if c.OnRevoked == "" {
		c.OnRevoked = PolicyStop
	}
	return c
}

// standing is what is known of the key service. It is pure: the times come from
// the caller.
type standing struct {
	cfg       Caching
	made      time.Time // of the intermediate key; zero: there is none
	confirmed time.Time // the key service last opened it
	err       error     // of the last try; nil: it succeeded
	denied    error     // the key was revoked, and no try succeeded since
	tries     int       // that failed, since one succeeded
	last      time.Time // try
}

// retryFirst is the pause before a failed request is made again; it doubles.
const retryFirst = time.Second

// answered notes that the key service opened the intermediate key.
func (s *standing) answered(now time.Time) {
	s.confirmed, s.last, s.err, s.denied, s.tries = now, now, nil, nil, 0
}

// failed notes that it did not. That a key was revoked holds until the service opens
// it again: a service that does not answer afterwards takes nothing back.
func (s *standing) failed(now time.Time, err error) {
	switch {
	case errors.Is(err, ErrRevoked):
		s.denied = err
	case s.denied != nil:
		err = fmt.Errorf("%w; asked again: %s", s.denied, err.Error())
	}
	s.err, s.last = err, now
	s.tries++
}

// revoked tells whether the key is gone rather than out of reach.
func (s *standing) revoked() bool { return errors.Is(s.err, ErrRevoked) }

// due tells what is to be asked of the key service now, if anything, and else when.
func (s *standing) due(now time.Time, spent bool) (renew, check bool, wait time.Duration) {
	if s.err != nil {
		if wait = s.last.Add(s.pause()).Sub(now); wait > 0 {
			return false, false, wait
		}
	}
	if s.made.IsZero() || spent || now.Sub(s.made) >= s.cfg.Renew {
		return true, false, 0
	}
	if s.err != nil || now.Sub(s.confirmed) >= s.cfg.Check {
		return false, true, 0
	}
	return false, false, min(s.made.Add(s.cfg.Renew).Sub(now), s.confirmed.Add(s.cfg.Check).Sub(now))
}

// pause is the time between two tries.
func (s *standing) pause() time.Duration {
	d := retryFirst
	for range s.tries - 1 {
		if d *= 2; d >= s.cfg.RetryMax {
			break
		}
	}
	return min(d, s.cfg.RetryMax)
}

// refuse says why nothing is recorded; nil: recordings may begin and go on.
func (s *standing) refuse(now time.Time) error {
	switch {
	case s.made.IsZero() && s.err != nil:
		return fmt.Errorf("no key was got since the start: %w", s.err)
	case s.made.IsZero():
		return fmt.Errorf("no key was got yet: %w", ErrUnreachable)
	case s.err == nil || s.policy() == PolicyContinue && now.Sub(s.confirmed) < s.cfg.For:
		return nil
	}
	return fmt.Errorf("%s: %w", s.why(), s.err)
}

// why says which key of the configuration has recording stop, after a failed request.
func (s *standing) why() string {
	switch {
	case s.policy() == PolicyContinue:
		return fmt.Sprintf("no key for longer than %s, keys.cache.for", s.cfg.For)
	case s.revoked():
		return "the key was revoked, and keys.on_revoked is stop"
	}
	return "the key service does not answer, and keys.on_unreachable is stop"
}

// policy is the one that holds after a failed request.
func (s *standing) policy() Policy {
	if s.revoked() {
		return s.cfg.OnRevoked
	}
	return s.cfg.OnUnreachable
}

// untilStop is how long recordings will go on while nothing changes; negative:
// for ever.
func (s *standing) untilStop(now time.Time) time.Duration {
	switch {
	case s.refuse(now) != nil:
		return 0
	case s.err == nil:
		return -1
	}
	return max(s.confirmed.Add(s.cfg.For).Sub(now), 0)
}
