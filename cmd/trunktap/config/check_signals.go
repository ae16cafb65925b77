package config

import "fmt"

// checkSignals holds the rules between the keys of the sources of signals.
func (d *decoder) checkSignals(c *Config) {
	var ami, esl []string
	for i := range c.Signals.AMI {
		ami = append(ami, c.Signals.AMI[i].Name)
	}
	for i := range c.Signals.ESL {
		esl = append(esl, c.Signals.ESL[i].Name)
	}
	d.checkSourceNames("signals.ami", ami)
	d.checkSourceNames("signals.esl", esl)
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
