package config

import (
	"fmt"
	"strings"
	"time"
)

// checkCapture holds the rules between the keys that say what is recorded.
func (d *decoder) checkCapture(c *Config) {
	for _, r := range c.recordings() {
		d.checkEncode(r.path+".encode", r.TrunkRecording)
		d.checkConsent(r.path+".consent", r.TrunkRecording)
		d.checkBeep(r.path+".beep", &r.Beep)
		d.checkRules(r.path+".rules", r.Rules)
	}
	for i := range c.Trunks {
		if t := &c.Trunks[i]; t.Role == "phones" {
			d.checkPhones(c, fmt.Sprintf("trunks[%d].recording", i), &t.Recording)
		}
	}
	d.checkStations(c)
	d.checkRates(c)
	d.checkCodes(c)
}

func (d *decoder) given(path string) bool {
	_, ok := d.at[path]
	return ok
}

func (d *decoder) checkEncode(path string, r *TrunkRecording) {
	if r.Encode.Mode == "deferred" && r.Format != "ogg-opus" && r.Format != "" {
		d.faultAt(path+".mode", "the format "+r.Format+" is not coded afterwards", "live, or format: ogg-opus")
	}
}

func (d *decoder) checkConsent(path string, r *TrunkRecording) {
	if r.Consent != "off" {
		return
	}
	if r.ConsentPreroll {
		d.faultAt(path+".preroll", "there is no consent to wait for", "false, or consent.mode: required")
	}
	for _, k := range []struct{ key, code string }{{"grant", r.ConsentDTMF.Grant}, {"deny", r.ConsentDTMF.Deny}} {
		if k.code != "" {
			d.faultAt(path+".dtmf."+k.key, "there is no consent to ask for", "to leave it out, or consent.mode: required")
		}
	}
}

// checkBeep completes a beep from its preset and checks it.
func (d *decoder) checkBeep(path string, b *Beep) {
	if b.Preset == "fs1037c" { // the other presets are the defaults
		inherit(d, path+".duration", &b.Duration, 500*time.Millisecond)
		inherit(d, path+".interval", &b.Interval, 15*time.Second)
	}
	if f := b.SecondFrequency; f > 0 && f < 300 {
		d.faultAt(path+".second_frequency", fmt.Sprintf("%d Hz is not heard on a telephone", f), "0, or 300 to 3400")
	}
	if b.Interval < 2*b.Duration {
		d.faultAt(path+".duration", fmt.Sprintf("%s of tone every %s leave no room to speak", short(b.Duration), short(b.Interval)), "at most half of beep.interval")
	}
}

// inherit sets what the file does not say.
func inherit[T any](d *decoder, path string, target *T, value T) {
	if !d.given(path) {
		*target = value
	}
}

// checkRules finds rules that no call reaches: behind one without a condition.
func (d *decoder) checkRules(path string, rules []Rule) {
	for i, r := range rules {
		all := (r.Direction == "any" || r.Direction == "") && len(r.From)+len(r.To)+len(r.Days) == 0 && r.Hours == Hours{}
		for _, k := range []string{"direction", "from", "to", "days", "hours"} { // one with a fault is empty
			all = all && (k == "direction" || !d.given(fmt.Sprintf("%s[%d].%s", path, i, k)))
		}
		if all && i < len(rules)-1 {
			d.faultAt(fmt.Sprintf("%s[%d]", path, i+1), fmt.Sprintf("no call gets here, rules[%d] matches every call", i), "a rule before that one")
			return
		}
	}
}

// checkPhones: what is heard by both parties belongs to the recording of the trunk.
func (d *decoder) checkPhones(c *Config, path string, r *TrunkRecording) {
	const allowed = "to leave it out on a trunk with the role phones"
	if r.Beep.Enabled {
		d.faultAt(path+".beep.enabled", "the beep belongs to recordings of the trunk", allowed)
	}
	if r.Announce.File != "" {
		d.faultAt(path+".announce.file", "the announcement belongs to recordings of the trunk", allowed)
	}
	if c.StationsFrom == "state" && r.Enabled {
		d.faultAt("stations_from", "nothing would be recorded of "+strings.TrimSuffix(path, ".recording")+", whose role is phones", "auto or legs")
	}
}

// checkStations completes the stations from their base and demands that a
// user and an address belong to one of them.
func (d *decoder) checkStations(c *Config) {
	users, addresses := map[string]int{}, map[string]int{}
	for i := range c.Stations {
		s, path := &c.Stations[i], fmt.Sprintf("stations[%d]", i)
		d.inheritStation(path+".recording", &s.Recording, &c.StationBase)
		if s.User == "" {
			continue // faulty itself
		}
		if j, ok := users[strings.ToLower(s.User)]; ok {
			d.faultAt(path+".user", fmt.Sprintf("%q is the user of stations[%d]", s.User, j), "a user once")
		}
		users[strings.ToLower(s.User)] = i
		for k, a := range s.Addresses {
			if j, ok := addresses[bare(a)]; ok && a != "" {
				d.faultAt(fmt.Sprintf("%s.addresses[%d]", path, k), fmt.Sprintf("%q is an address of stations[%d]", a, j), "an address once")
			}
			addresses[bare(a)] = i
		}
	}
	for i := range c.Stations {
		s := &c.Stations[i]
		if j, ok := addresses[bare(s.User)]; ok && j != i && len(s.Addresses) == 0 {
			d.faultAt(fmt.Sprintf("stations[%d].user", i), fmt.Sprintf("%q is an address of stations[%d], and this station has no other", s.User, j), "addresses of its own")
		}
	}
}

// bare is an address as it is compared.
func bare(a string) string {
	if strings.Contains(a, "@") {
		return strings.ToLower(a)
	}
	return strings.NewReplacer(" ", "", "-", "", ".", "", "(", "", ")", "").Replace(strings.ToLower(a))
}

func (d *decoder) inheritStation(path string, r, base *StationRecording) {
	inherit(d, path+".enabled", &r.Enabled, base.Enabled)
	inherit(d, path+".format", &r.Format, base.Format)
	inherit(d, path+".dual_channel", &r.DualChannel, base.DualChannel)
	inherit(d, path+".suppressed", &r.Suppressed, base.Suppressed)
	inherit(d, path+".discard_below", &r.DiscardBelow, base.DiscardBelow)
	inherit(d, path+".storage", &r.Storage, base.Storage)
}

// checkCodes demands that the digits of a party tell which code is meant: none
// is complete before the last digit of another.
func (d *decoder) checkCodes(c *Config) {
	type entry struct{ path, code, from string }
	same := func(x, y entry) bool { return x.from == y.from || x.from == "any" || y.from == "any" }
	told := map[string]bool{}
	check := func(x, y entry) {
		if d.before(x.path, y.path) {
			x, y = y, x
		}
		if x.code == "" || y.code == "" || !same(x, y) || told[x.path] {
			return
		}
		var problem string
		switch {
		case x.code == y.code:
			problem = fmt.Sprintf("%q is the code of %s", x.code, y.path)
		case strings.Contains(y.code[:len(y.code)-1], x.code):
			problem = fmt.Sprintf("%q lies within %q of %s", x.code, y.code, y.path)
		case strings.Contains(x.code[:len(x.code)-1], y.code):
			problem = fmt.Sprintf("%q of %s lies within %q", y.code, y.path, x.code)
		default:
			return
		}
		told[x.path] = true
		d.faultAt(x.path, problem, "digits of its own")
	}
	s := &c.Signals.DTMF
	pause, resume := entry{"signals.dtmf.pause", s.Pause, s.From}, entry{"signals.dtmf.resume", s.Resume, s.From}
	check(pause, resume)
	for _, r := range c.recordings() {
		x, path := &r.ConsentDTMF, r.path+".consent.dtmf."
		grant, deny := entry{path + "grant", x.Grant, x.From}, entry{path + "deny", x.Deny, x.From}
		check(grant, deny)
		for _, e := range []entry{pause, resume} {
			check(grant, e)
			check(deny, e)
		}
	}
}
