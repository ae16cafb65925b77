package config

import (
	"fmt"
	"strings"
)

// checkSignals holds the rules between the keys of the sources of signals.
func (d *decoder) checkSignals(c *Config) {
	d.checkOwned("signals.headers", c.Signals.Headers)
	d.checkOwned("signals.user_to_user", c.Signals.UserToUser)
	var ami, esl []string
	for i := range c.Signals.AMI {
		a := &c.Signals.AMI[i]
		ami = append(ami, a.Name)
		d.checkTLS(fmt.Sprintf("signals.ami[%d].tls", i), a.TLS)
	}
	for i := range c.Signals.ESL {
		esl = append(esl, c.Signals.ESL[i].Name)
	}
	d.checkSourceNames("signals.ami", ami)
	d.checkSourceNames("signals.esl", esl)
	d.checkNATS("signals.nats")
}

// checkSourceNames: two sources of one name could not be told apart.
func (d *decoder) checkSourceNames(path string, names []string) {
	first := map[string]int{}
	for i, name := range names {
		if j, ok := first[name]; ok && name != "" {
			d.faultAt(fmt.Sprintf("%s[%d].name", path, i), fmt.Sprintf("%q is the name of %s[%d]", name, path, j), "a name of its own")
			continue
		}
		first[name] = i
	}
}

func (d *decoder) checkNATS(path string) {
	if d.given(path+".stream") != d.given(path+".durable") {
		have, lacks := "stream", "durable"
		if d.given(path + ".durable") {
			have, lacks = lacks, have
		}
		d.faultAt(path+"."+have, "there is no "+lacks, "both of stream and durable, or none")
	}
	if d.given(path+".user") != d.given(path+".password_file") {
		d.faultAt(path+".user", "a user and a password_file belong together", "both, or none")
	}
	first := ""
	for _, key := range []string{"credentials_file", "token_file", "user"} {
		switch {
		case !d.given(path + "." + key):
		case first != "":
			d.faultAt(path+"."+key, "there is a "+first+" already", "one way to log in")
		default:
			first = key
		}
	}
}

// checkTLS: whoever says how means that it is to be.
func (d *decoder) checkTLS(path string, t TLS) {
	if !t.Enabled && !d.given(path+".enabled") && (t.CAFile != "" || t.ServerName != "") {
		d.faultAt(path, "the key enabled is missing", "enabled: true, or false")
	}
}

// checkOwned: what a user begins and ends must say whose it is.
func (d *decoder) checkOwned(path string, rules []SignalRule) {
	for i, r := range rules {
		what, _, _ := strings.Cut(r.Event, ".")
		if at := fmt.Sprintf("%s[%d]", path, i); (what == "snippet" || what == "adhoc") && !d.given(at+".user") {
			d.faultAt(at, "the key user is missing, "+r.Event+" belongs to one", "a text, $value or $param:name")
		}
	}
}
