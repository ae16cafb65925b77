package archive

import (
	"sync/atomic"

	"github.com/trunktap/trunktap/recorder"
)

// SpaceConfig says what is done when disks fill up.
type SpaceConfig struct{}

type space struct{}

// liveSpool is what a recording that goes on takes up in the spool.
type liveSpool struct {
	priority recorder.Priority
	since    uint64 // the smaller the older
	bytes    atomic.Int64
}

func (a *Archive) notify(event string, data map[string]any) {
	if a.cfg.Notify != nil {
		a.cfg.Notify(event, data)
	}
}
