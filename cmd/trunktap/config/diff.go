package config

import (
	"fmt"
	"reflect"
)

// Changes tells what differs between two configurations, as paths of keys.
type Changes struct {
	NewCalls []string // takes effect for calls that begin from now on
	Restart  []string // takes effect at the next start
}

// Empty tells that nothing differs.
func (c Changes) Empty() bool { return len(c.NewCalls)+len(c.Restart) == 0 }

// Diff compares two configurations. Trunks are compared by name:
// "trunks[carrier-a].recording.format"; one that came or went is named
// "trunks[carrier-a]".
func Diff(old, now *Config) Changes {
	var ch Changes
	ch.fields("", table(old), table(now))
	was, is := map[string]*Trunk{}, map[string]*Trunk{}
	for i := range old.Trunks {
		was[old.Trunks[i].Name] = &old.Trunks[i]
	}
	for i := range now.Trunks {
		t := &now.Trunks[i]
		is[t.Name] = t
		path := fmt.Sprintf("trunks[%s]", t.Name)
		if o := was[t.Name]; o != nil {
			ch.fields(path, trunkTable(o), trunkTable(t))
		} else {
			ch.NewCalls = append(ch.NewCalls, path)
		}
	}
	for i := range old.Trunks {
		if name := old.Trunks[i].Name; is[name] == nil {
			ch.NewCalls = append(ch.NewCalls, fmt.Sprintf("trunks[%s]", name))
		}
	}
	return ch
}

// fields compares two trees of one shape.
func (c *Changes) fields(path string, old, now *node) {
	for i, o := range old.fields {
		n := now.fields[i]
		p := join(path, o.key)
		switch {
		case o.kind == objectKind:
			c.fields(p, o, n)
		case p == "trunks":
		case reflect.DeepEqual(o.target, n.target):
		case o.restart:
			c.Restart = append(c.Restart, p)
		default:
			c.NewCalls = append(c.NewCalls, p)
		}
	}
}
