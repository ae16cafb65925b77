package config

// checkPassive holds what only makes sense, or never does, where calls are
// listened to and do not go through the daemon.
func (d *decoder) checkPassive(path string, t *Trunk, c *Config) {
	if !t.Passive {
		return
	}
	if len(c.Capture.Interfaces) == 0 && !d.given("capture.interfaces") {
		d.faultAt(path+".passive", "capture.interfaces names no interface that its calls pass", "false, or capture.interfaces")
	}
	if len(t.External.Peers)+len(t.Internal.Peers) == 0 && !d.given(path+".external.peers") && !d.given(path+".internal.peers") {
		d.faultAt(path+".external.peers", "the key is missing, and nothing else tells which calls are of this trunk",
			"a list, each an IP address or a network in CIDR form")
	}
	r := &t.Recording
	for _, x := range []struct {
		wrong              bool
		key, said, allowed string
	}{
		{len(t.External.NextHops) > 0, ".external.next_hops", "calls of a passive trunk are sent nowhere", "to leave it out"},
		{len(t.Internal.NextHops) > 0, ".internal.next_hops", "calls of a passive trunk are sent nowhere", "to leave it out"},
		{r.OnFailure == "refuse", ".recording.on_failure", "calls of a passive trunk cannot be refused", "allow"},
		{r.Beep.Enabled, ".recording.beep", "nothing can be mixed into the calls of a passive trunk", "enabled: false"},
		{r.Announce.File != "", ".recording.announce", "nothing can be played into the calls of a passive trunk", "to leave it out"},
	} {
		if x.wrong {
			d.faultAt(path+x.key, x.said, x.allowed)
		}
	}
}
