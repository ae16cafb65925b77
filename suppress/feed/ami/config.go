package ami

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// Config says how to reach one Asterisk and how to read its channels.
type Config struct {
	Name string // Signal.Source: "ami:pbx1"
	Addr string // host:port, Asterisk's default port is 5038
	TLS  *tls.Config
	MD5  bool // log in by challenge: the secret does not cross the wire (it is no protection against changes there)

	Username, Secret string

	// Trunks name the channels whose calls pass through trunktap and reach the
	// outside: "PJSIP/carrier-a" is that endpoint, "PJSIP/carrier-*" (or a final
	// "-") every channel whose name begins so. At least one.
	Trunks []string
	// Stations name those whose calls pass through trunktap and do not, in the
	// same form.
	Stations []string

	// CallIDVariables are the variables of ChanVariable headers that hold a
	// channel's Call-ID. Empty: TRUNKTAP_CALLID, CHANNEL(pjsip,call-id), SIPCALLID.
	CallIDVariables []string

	// Users maps an endpoint ("PJSIP/alice", or "alice") or a queue member's
	// interface to the user of agent.*, hold.* and consult.*. Without an entry the
	// user is the endpoint's name.
	Users map[string]string
	// MemberNames names agents of queues by MemberName instead.
	MemberNames bool
	// QueueAgentsOnly leaves out of agent.* who is merely bridged with a call.
	QueueAgentsOnly bool
	// SpyRole is the role of who spies in a mode that is not known. Empty: monitor.
	SpyRole suppress.Role

	PingInterval time.Duration // 0: 15 s. A connection silent for three of them is given up
	BackoffMin   time.Duration // before the first reconnect, doubled for each further one. 0: 500 ms
	BackoffMax   time.Duration // 0: 30 s

	// Dial opens the connection, before TLS. Nil: net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Log  *slog.Logger // nil: nothing is logged
}

// Validate lists all faults.
func (c Config) Validate() error {
	var faults []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	need(c.Name != "", "name: is missing, wanted is a name that no other source has")
	_, _, err := net.SplitHostPort(c.Addr)
	need(err == nil, "addr: %q is no host:port", c.Addr)
	need(c.Username != "", "username: is missing, wanted is a section of manager.conf")
	need(len(c.Trunks) > 0, "trunks: are missing, wanted is at least one endpoint, as PJSIP/carrier-a")
	for _, p := range append(append([]string(nil), c.Trunks...), c.Stations...) {
		tech, rest, ok := strings.Cut(p, "/")
		need(ok && tech != "" && (rest != "" || strings.HasSuffix(p, "/")), "trunks, stations: %q is no channel, wanted is technology/endpoint", p)
	}
	need(c.SpyRole == "" || c.SpyRole == suppress.RoleMonitor || c.SpyRole == suppress.RoleCoach || c.SpyRole == suppress.RoleBarge,
		"spy_role: %q is not known, allowed are monitor, coach, barge", c.SpyRole)
	need(c.PingInterval >= 0 && c.BackoffMin >= 0 && c.BackoffMax >= 0, "ping_interval, backoff_min, backoff_max: negative")
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	if len(c.CallIDVariables) == 0 {
		c.CallIDVariables = []string{"TRUNKTAP_CALLID", varPJSIP, varSIP}
	}
	if c.SpyRole == "" {
		c.SpyRole = suppress.RoleMonitor
	}
	if c.PingInterval == 0 {
		c.PingInterval = 15 * time.Second
	}
	if c.BackoffMin == 0 {
		c.BackoffMin = 500 * time.Millisecond
	}
	if c.BackoffMax == 0 {
		c.BackoffMax = 30 * time.Second
	}
	c.BackoffMax = max(c.BackoffMax, c.BackoffMin)
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// matches tells whether one of the patterns names the channel.
func matches(patterns []string, channel string) bool {
	for _, p := range patterns {
		prefix, open := strings.CutSuffix(p, "*")
		switch {
		case open || strings.HasSuffix(p, "-") || strings.HasSuffix(p, "/"):
			if strings.HasPrefix(channel, prefix) {
				return true
			}
		case p == deviceOf(channel):
			return true
		}
	}
	return false
}

// deviceOf returns a channel's name without the part that makes it unique:
// "PJSIP/alice" of "PJSIP/alice-0000002a".
func deviceOf(channel string) string {
	if i := strings.LastIndexByte(channel, '-'); i > 0 {
		return channel[:i]
	}
	return channel
}

// userOf returns the user of a device or a queue member's interface.
func (c *Config) userOf(device string) string {
	_, endpoint, ok := strings.Cut(device, "/")
	if !ok {
		endpoint = device
	}
	endpoint, _, _ = strings.Cut(endpoint, "@")
	for _, key := range [...]string{device, endpoint} {
		if user, ok := c.Users[key]; ok {
			return clean(user)
		}
	}
	return clean(endpoint)
}

// clean makes text fit to stand in a signal: UTF-8, printable, 256 bytes.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > textBytesMax {
		s = strings.ToValidUTF8(s[:textBytesMax], "")
	}
	return s
}

const textBytesMax = 256 // of a field of a signal, as suppress.Signal.Validate has it
