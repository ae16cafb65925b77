package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/cmd/trunktap/picture"
	"github.com/trunktap/trunktap/recorder"
)

type usageCmd struct {
	configFlag
	Group []string `help:"Sum up apart: day, trunk, user, kind, store, node." default:"trunk" placeholder:"WORD,..."`
	From  string   `help:"Not before this day, in UTC." placeholder:"DAY"`
	To    string   `help:"Before this day." placeholder:"DAY"`
	Trunk string   `help:"Of this trunk." placeholder:"NAME"`
	User  string   `help:"Of this user." placeholder:"NAME"`
	JSON  bool     `help:"Print JSON." name:"json"`
}

// Run prints what is stored.
func (c *usageCmd) Run(e *env) (err error) {
	q := recorder.UsageQuery{Group: c.Group, From: c.From, To: c.To, Trunk: c.Trunk, User: c.User}
	if err := q.Check(); err != nil {
		return usagef("trunktap: usage: --%w", err)
	}
	src, err := c.source(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	rows, err := src.usage(e.ctx, q)
	if err != nil {
		return fmt.Errorf("account for what is stored: %w", err)
	}
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(map[string][]recorder.Usage{"usage": append([]recorder.Usage{}, rows...)})
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(group []string, rest ...string) {
		_, _ = fmt.Fprintln(w, strings.Join(append(group, rest...), "\t")+"\t") // errors come with Flush
	}
	line(strings.Split(strings.ToUpper(strings.Join(c.Group, " ")), " "), "RECORDINGS", "AUDIO", "AUDIO BYTES", "MANIFEST BYTES", "OTHER BYTES")
	for _, u := range rows {
		line(groupOf(u, c.Group), strconv.FormatInt(u.Recordings, 10), picture.Clock(u.AudioMS, true),
			strconv.FormatInt(u.AudioBytes, 10), strconv.FormatInt(u.ManifestBytes, 10), strconv.FormatInt(u.OtherBytes, 10))
	}
	return w.Flush()
}

func groupOf(u recorder.Usage, group []string) []string {
	var out []string
	for _, g := range group {
		out = append(out, dash(clean(map[string]string{
			"day": u.Day, "trunk": u.Trunk, "user": u.User, "kind": string(u.Kind), "store": u.Store, "node": u.Node,
		}[g])))
	}
	return out
}

func (l local) usage(ctx context.Context, q recorder.UsageQuery) ([]recorder.Usage, error) {
	return l.Usage(ctx, q)
}

func (r *remote) usage(ctx context.Context, q recorder.UsageQuery) ([]recorder.Usage, error) {
	v := url.Values{}
	for key, s := range map[string]string{"group": strings.Join(q.Group, ","), "from": q.From, "to": q.To, "trunk": q.Trunk, "user": q.User} {
		if s != "" {
			v.Set(key, s)
		}
	}
	var out struct{ Usage []recorder.Usage }
	err := r.decode(ctx, "/v1/usage?"+v.Encode(), &out)
	return out.Usage, err
}

// usageMetrics are what the catalogue accounts for, by trunk and kind.
type usageMetrics struct {
	of                        func(context.Context, recorder.UsageQuery) ([]recorder.Usage, error)
	recordings, seconds, size *prometheus.Desc
}

const usageMetricsMax = time.Second // longer a catalogue is not waited for

func newUsageMetrics(of func(context.Context, recorder.UsageQuery) ([]recorder.Usage, error)) *usageMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("trunktap_stored_"+name, help, append([]string{"trunk", "kind"}, labels...), nil)
	}
	return &usageMetrics{
		of:         of,
		recordings: desc("recordings", "Recordings that the catalogue lists."),
		seconds:    desc("audio_seconds", "Their audio."),
		size:       desc("bytes", "What they take, as stored.", "object"),
	}
}

// Describe implements prometheus.Collector.
func (u *usageMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- u.recordings
	to <- u.seconds
	to <- u.size
}

// Collect implements prometheus.Collector. While the catalogue does not answer there are none.
func (u *usageMetrics) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), usageMetricsMax)
	defer cancel()
	rows, err := u.of(ctx, recorder.UsageQuery{Group: []string{"trunk", "kind"}})
	if err != nil {
		return
	}
	for _, r := range rows {
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{r.Trunk, string(r.Kind)}, labels...)...)
		}
		gauge(u.recordings, float64(r.Recordings))
		gauge(u.seconds, float64(r.AudioMS)/1000)
		gauge(u.size, float64(r.AudioBytes), "audio")
		gauge(u.size, float64(r.ManifestBytes), "manifest")
		gauge(u.size, float64(r.OtherBytes), "other")
	}
}
