package config

import (
	"fmt"
	"slices"
)

// checkAuth demands what credentials need.
func (d *decoder) checkAuth(c *Config) {
	for i := range c.Trunks {
		for j, s := range c.Trunks[i].Sides() {
			at := fmt.Sprintf("trunks[%d].%s.", i, [2]string{"external", "internal"}[j])
			if s.Challenge && s.Auth.Realm == "" {
				d.faultAt(at+"challenge", "there is no realm to challenge with", "with auth and its realm")
			}
			r := &s.Register
			if r.Server.Host == "" {
				continue
			}
			if s.Auth.Username == "" {
				d.faultAt(at+"register", "there are no credentials to register with", "with auth")
			}
			if len(c.SIP.Listen) > 0 && !slices.ContainsFunc(c.SIP.Listen, func(l Listener) bool { return l.reaches(r.Server) }) {
				d.faultAt(at+"register.server", "no entry of sip.listen can reach it", "a registrar of a transport and address family that sip.listen has")
			}
		}
	}
}

// secured tells whether a transport runs over TLS.
func secured(transport string) bool { return transport == "tls" || transport == "wss" }

// checkTransport demands what TLS needs where it is spoken.
func (d *decoder) checkTransport(c *Config) {
	t := &c.SIP.TLS
	for i, l := range c.SIP.Listen {
		if secured(l.Transport) && t.Cert == "" {
			d.faultAt(fmt.Sprintf("sip.listen[%d]", i), l.Transport+":// needs a certificate", "with sip.tls.cert and sip.tls.key")
		}
	}
	d.bothOrNone("sip.tls", t.Cert, t.Key)
	for i := range c.Trunks {
		for j, s := range c.Trunks[i].Sides() {
			at := fmt.Sprintf("trunks[%d].%s.tls", i, [2]string{"external", "internal"}[j])
			d.bothOrNone(at, s.TLS.Cert, s.TLS.Key)
			if s.TLS.PeerName != "" && t.ClientCA == "" && listensSecured(c) {
				d.faultAt(at+".peer_name", "nobody shows a certificate without sip.tls.client_ca", "with sip.tls.client_ca")
			}
		}
	}
}

func listensSecured(c *Config) bool {
	for _, l := range c.SIP.Listen {
		if secured(l.Transport) {
			return true
		}
	}
	return false
}

// bothOrNone demands a key with a certificate.
func (d *decoder) bothOrNone(path, cert, key string) {
	switch {
	case cert != "" && key == "":
		d.faultAt(path+".cert", "a certificate without its key", "with "+path+".key")
	case cert == "" && key != "":
		d.faultAt(path+".key", "a key without its certificate", "with "+path+".cert")
	}
}
