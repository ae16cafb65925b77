package config

import "fmt"

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
