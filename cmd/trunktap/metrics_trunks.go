package main

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/sip/b2bua"
	"github.com/trunktap/trunktap/sip/dns"
)

// trunkMetrics registers what is known of the next hops, and why requests were refused.
func trunkMetrics(reg *prometheus.Registry, b *b2bua.B2BUA, names *dns.Resolver) {
	reg.MustRegister(newHopMetrics(b))
	c := b.Counters()
	for reason, v := range map[string]*atomic.Uint64{
		"calls": &c.Refused.Calls, "rate": &c.Refused.Rate, "in_dialog": &c.Refused.InDialog, "delay": &c.Refused.Delay,
		"memory": &c.Refused.Memory, "usages": &c.Refused.Usages, "lingering": &c.Refused.Lingering, "loop": &c.Refused.Loops, "credentials": &c.Refused.Unauthentic,
	} {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "trunktap", Name: "sip_limited_total", Help: "Requests refused, by what stood against them.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(v.Load()) }))
	}
	counters := []namedCounter{
		{"sip_redirected_total", "Redirections followed.", &c.Redirected},
		{"sip_authorized_total", "Challenges answered with the credentials of a side.", &c.Authorized},
		{"sip_credentials_refused_total", "Of these, answers that were refused.", &c.Rejected},
	}
	if names != nil {
		counters = append(counters, namedCounter{"dns_queries_total", "Questions to DNS servers.", &names.Counters.Queries},
			namedCounter{"dns_failed_total", "Questions that no DNS server has answered.", &names.Counters.Failed},
			namedCounter{"dns_stale_total", "Answers of DNS used beyond their time, because no server gave a new one.", &names.Counters.Stale})
	}
	for _, one := range counters {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "trunktap", Name: one.name, Help: one.help},
			func() float64 { return float64(one.v.Load()) }))
	}
}

type namedCounter struct {
	name, help string
	v          *atomic.Uint64
}

// hopMetrics shows how next hops do.
type hopMetrics struct {
	b                                        *b2bua.B2BUA
	up, requests, failed, pings, pingsFailed *prometheus.Desc
	registered, registerFailed               *prometheus.Desc
}

func newHopMetrics(b *b2bua.B2BUA) *hopMetrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("trunktap_next_hop_"+name, help, []string{"trunk", "side", "next_hop"}, nil)
	}
	return &hopMetrics{
		b:           b,
		up:          desc("up", "Whether a next hop gets calls."),
		requests:    desc("requests_total", "Requests that began something and were sent to it."),
		failed:      desc("failed_total", "Those that it did not answer, answered with 503, or that could not be sent."),
		pings:       desc("pings_total", "Pings sent to it."),
		pingsFailed: desc("pings_failed_total", "Those that it did not answer, or answered with 503."),

		registered:     prometheus.NewDesc("trunktap_registered", "Whether the binding of a side at its registrar is there.", []string{"trunk", "side"}, nil),
		registerFailed: prometheus.NewDesc("trunktap_register_failed_total", "Attempts to register that failed.", []string{"trunk", "side"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *hopMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.up, m.requests, m.failed, m.pings, m.pingsFailed, m.registered, m.registerFailed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *hopMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, h := range m.b.NextHops() {
		labels := []string{h.Trunk, h.Side.String(), h.NextHop.String()}
		up := 0.0
		if h.Up {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(m.up, prometheus.GaugeValue, up, labels...)
		for d, v := range map[*prometheus.Desc]uint64{m.requests: h.Requests, m.failed: h.Failed, m.pings: h.Pings, m.pingsFailed: h.PingsFailed} {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
		}
	}
	for _, r := range m.b.Registrations() {
		up := 0.0
		if r.Registered {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(m.registered, prometheus.GaugeValue, up, r.Trunk, r.Side.String())
		ch <- prometheus.MustNewConstMetric(m.registerFailed, prometheus.CounterValue, float64(r.Failed), r.Trunk, r.Side.String())
	}
}
