// Package dns finds where the name of a next hop leads: NAPTR, SRV and addresses (RFC
// 3263), over a small cache that goes on with old answers while no server gives new
// ones.
package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Limits of a Resolver.
const (
	entriesMaxDefault = 4096
	targetsMax        = 32 // of one name
	recordsMax        = 64 // of one answer
	ttlMin            = time.Second
	ttlMax            = time.Hour
	ttlNegative       = 30 * time.Second // of the answer that there is nothing
	staleMaxDefault   = 24 * time.Hour
	tryTimeout        = time.Second // of one question to one server
)

// Config of a Resolver.
type Config struct {
	Servers    []netip.AddrPort // asked in turn
	EntriesMax int              // answers kept; 0: 4096
	StaleMax   time.Duration    // how long an answer is used when no new one is to be had; 0: 24 h
	// Hosts, which may be nil, is asked before any server: what it has needs none.
	Hosts func(name string) []netip.Addr

	Exchange func(ctx context.Context, server netip.AddrPort, query []byte) ([]byte, error) // nil: UDP, and TCP for what is cut off
	Now      func() time.Time                                                               // nil: the system's clock
	Random   func(n int) int                                                                // nil: by chance
}

// Counters of a Resolver.
type Counters struct {
	Queries atomic.Uint64 // questions to servers
	Failed  atomic.Uint64 // that none has answered
	Stale   atomic.Uint64 // answers that were used beyond their time
}

// Target is one place where a name leads.
type Target struct {
	Network string // udp, tcp, tls, ws or wss
	Addr    netip.AddrPort
}

// ErrNotFound means that the name does not exist, or has nothing of what was asked for.
var ErrNotFound = errors.New("no such name, or no address of it")

// Resolver is safe for concurrent use.
type Resolver struct {
	cfg      Config
	Counters Counters

	mu    sync.Mutex
	cache map[question]answer // guarded by mu
}

type question struct {
	name string // lower case, with the dot at the end
	kind dnsmessage.Type
}

// answer is kept until staleUntil, and good until until.
type answer struct {
	records           []record
	until, staleUntil time.Time
}

// record is what is understood of one.
type record struct {
	addr     netip.Addr // A, AAAA
	priority uint16     // SRV; order of NAPTR
	weight   uint16     // SRV; preference of NAPTR
	port     uint16
	name     string // SRV, NAPTR
	service  string // NAPTR, upper case
}

// New makes a resolver that asks the given servers.
func New(cfg Config) *Resolver {
	cfg.EntriesMax = cmp.Or(cfg.EntriesMax, entriesMaxDefault)
	cfg.StaleMax = cmp.Or(cfg.StaleMax, staleMaxDefault)
	if cfg.Exchange == nil {
		cfg.Exchange = exchange
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.IntN
	}
	return &Resolver{cfg: cfg, cache: map[question]answer{}}
}

// services are those of NAPTR (RFC 3263 section 4.1, RFC 7118 section 6), in the order
// in which transports are tried without any.
var services = []struct{ network, naptr, srv string }{
	{"udp", "SIP+D2U", "_sip._udp."},
	{"tcp", "SIP+D2T", "_sip._tcp."},
	{"tls", "SIPS+D2T", "_sips._tcp."},
	{"ws", "SIP+D2W", "_sip._ws."},
	{"wss", "SIPS+D2W", "_sips._ws."},
}

// Targets finds where requests for host go (RFC 3263 section 4), the first to be tried
// first. transport and port may be left out: empty and 0. can says whether a
// transport is to be had; defaultPort is the port of one.
func (r *Resolver) Targets(ctx context.Context, host, transport string, port uint16, can func(network string) bool, defaultPort func(network string) uint16) ([]Target, error) {
	name := fqdn(host)
	if port != 0 || strings.Count(name, ".") < 2 || r.cfg.Hosts != nil && len(r.cfg.Hosts(strings.TrimSuffix(name, "."))) > 0 {
		// SRV knows nothing of names without dots, and a name that the machine has was meant.
		network := cmp.Or(transport, "udp")
		return r.addresses(ctx, nil, network, name, cmp.Or(port, defaultPort(network)))
	}
	var out []Target
	if transport == "" {
		found, err := r.naptr(ctx, name, can)
		if err != nil || len(found) > 0 {
			return found, err
		}
	}
	for _, s := range services {
		if transport != "" && s.network != transport || transport == "" && !can(s.network) {
			continue
		}
		found, err := r.srv(ctx, s.network, s.srv+name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		out = append(out, found...)
	}
	if len(out) > 0 {
		return out[:min(len(out), targetsMax)], nil
	}
	network := cmp.Or(transport, "udp")
	return r.addresses(ctx, nil, network, name, defaultPort(network))
}

// naptr follows NAPTR records to SRV (RFC 3263 section 4.1); none: no error.
func (r *Resolver) naptr(ctx context.Context, name string, can func(string) bool) ([]Target, error) {
	records, err := r.lookup(ctx, question{name, typeNAPTR})
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(records, func(a, b record) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.weight, b.weight))
	})
	var out []Target
	for _, rec := range records {
		for _, s := range services {
			if rec.service != s.naptr || !can(s.network) {
				continue
			}
			found, err := r.srv(ctx, s.network, rec.name)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return nil, err
			}
			out = append(out, found...)
		}
	}
	return out[:min(len(out), targetsMax)], nil
}

// srv returns the targets of an SRV name in the order of RFC 2782.
func (r *Resolver) srv(ctx context.Context, network, name string) ([]Target, error) {
	records, err := r.lookup(ctx, question{name, dnsmessage.TypeSRV})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(records, func(a, b record) int { // those of no weight before others of their priority
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(min(a.weight, 1), min(b.weight, 1)))
	})
	for i := range records {
		r.draw(records[i:])
	}
	var out []Target
	var last error
	for _, rec := range records {
		if rec.name == "." || len(out) >= targetsMax {
			continue // "." says that there is no such service
		}
		if out, err = r.addresses(ctx, out, network, rec.name, rec.port); err != nil {
			last = err
		}
	}
	if len(out) == 0 && last == nil {
		last = ErrNotFound
	}
	if len(out) > 0 {
		last = nil
	}
	return out, last
}

// draw brings one of those of the first priority to the front, by weight (RFC 2782).
func (r *Resolver) draw(records []record) {
	sum, end := 0, 0
	for ; end < len(records) && records[end].priority == records[0].priority; end++ {
		sum += int(records[end].weight)
	}
	pick := r.cfg.Random(sum + 1)
	for i := range end {
		if pick -= int(records[i].weight); pick <= 0 {
			chosen := records[i]
			copy(records[1:i+1], records[:i])
			records[0] = chosen
			return
		}
	}
}

// addresses appends those of a name, IPv4 before IPv6.
func (r *Resolver) addresses(ctx context.Context, out []Target, network, name string, port uint16) ([]Target, error) {
	var found []netip.Addr
	if r.cfg.Hosts != nil {
		found = r.cfg.Hosts(strings.TrimSuffix(name, "."))
	}
	var errs []error
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		if len(found) > 0 {
			break
		}
		records, err := r.lookup(ctx, question{name, kind})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, rec := range records {
			out = append(out, Target{network, netip.AddrPortFrom(rec.addr, port)})
		}
	}
	for _, a := range found {
		out = append(out, Target{network, netip.AddrPortFrom(a, port)})
	}
	if len(errs) == 2 {
		if errors.Is(errs[0], ErrNotFound) {
			return out, errs[1]
		}
		return out, errs[0]
	}
	return out, nil
}

// lookup returns the records of a question, from the cache or a server. The result
// may be sorted.
func (r *Resolver) lookup(ctx context.Context, q question) ([]record, error) {
	q.name = strings.ToLower(q.name)
	now := r.cfg.Now()
	r.mu.Lock()
	kept, known := r.cache[q]
	r.mu.Unlock()
	if known && now.Before(kept.until) {
		return found(kept)
	}
	fresh, err := r.ask(ctx, q)
	if err != nil {
		if known && now.Before(kept.staleUntil) {
			r.Counters.Stale.Add(1)
			return found(kept)
		}
		return nil, fmt.Errorf("ask for %s of %s: %w", strings.TrimPrefix(q.kind.String(), "Type"), q.name, err)
	}
	r.keep(q, fresh, now)
	return found(fresh)
}

func found(a answer) ([]record, error) {
	if len(a.records) == 0 {
		return nil, ErrNotFound
	}
	return slices.Clone(a.records), nil
}

// keep caches an answer; when the cache is full some others go.
func (r *Resolver) keep(q question, a answer, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.cache[q]; !known && len(r.cache) >= r.cfg.EntriesMax {
		gone := 0
		for old, have := range r.cache { // by chance, as maps are walked; what is over first
			if !now.Before(have.until) || gone == 0 {
				delete(r.cache, old)
				gone++
			}
			if gone > r.cfg.EntriesMax/16 {
				break
			}
		}
	}
	r.cache[q] = a
}

// Len is how many answers are kept.
func (r *Resolver) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.cache)
}

// ask asks the servers in turn, all of them twice.
func (r *Resolver) ask(ctx context.Context, q question) (answer, error) {
	err := errors.New("no server is configured")
	for range 2 {
		for _, server := range r.cfg.Servers {
			if ctx.Err() != nil {
				return answer{}, ctx.Err()
			}
			r.Counters.Queries.Add(1)
			var a answer
			if a, err = r.askOne(ctx, server, q); err == nil {
				return a, nil
			}
		}
	}
	r.Counters.Failed.Add(1)
	return answer{}, err
}

func (r *Resolver) askOne(ctx context.Context, server netip.AddrPort, q question) (answer, error) {
	id := uint16(rand.Uint32())
	query, err := pack(id, q)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	reply, err := r.cfg.Exchange(ctx, server, query)
	if err != nil {
		return answer{}, err
	}
	records, ttl, err := parse(reply, id, q)
	if err != nil {
		return answer{}, err
	}
	now := r.cfg.Now()
	ttl = min(max(ttl, ttlMin), ttlMax)
	return answer{records: records, until: now.Add(ttl), staleUntil: now.Add(ttl + r.cfg.StaleMax)}, nil
}

func fqdn(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) + "." }
