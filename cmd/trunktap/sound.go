package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/overlay"
)

// announcementMax is the longest announcement.
const announcementMax = 2 * time.Minute

// sounds is what the parties of recorded calls hear of it, by trunk.
type sounds struct {
	trunks map[string]sound
	counts overlay.Counts
}

// sound is what is heard on one trunk.
type sound struct {
	beep         *overlay.Beep
	beepTo       string
	announcement *overlay.Announcement
	announceTo   string
}

// newSounds reads what the trunks of the configuration play.
func newSounds(cfg *config.Config) (*sounds, error) {
	s := &sounds{trunks: map[string]sound{}}
	var errs []error
	for i := range cfg.Trunks {
		t := &cfg.Trunks[i]
		r := &t.Recording
		if !r.Enabled || t.Role == rolePhones {
			continue
		}
		var x sound
		if b := &r.Beep; b.Enabled {
			x.beep, x.beepTo = &overlay.Beep{
				Frequency: float64(b.Frequency), Second: float64(b.SecondFrequency), Duration: b.Duration, Interval: b.Interval, LevelDB: float64(b.Level),
			}, b.To
			if err := x.beep.Validate(); err != nil {
				errs = append(errs, fmt.Errorf("beep of trunk %s: %w", t.Name, err))
			}
		}
		if r.Announce.File != "" {
			a, err := readAnnouncement(r.Announce.File)
			if err != nil {
				errs = append(errs, fmt.Errorf("announcement of trunk %s: %w", t.Name, err))
			}
			x.announcement, x.announceTo = a, r.Announce.To
		}
		if x.beep != nil || x.announcement != nil {
			s.trunks[t.Name] = x
		}
	}
	return s, errors.Join(errs...)
}

func readAnnouncement(path string) (*overlay.Announcement, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	a, err := overlay.ReadAnnouncement(f, announcementMax)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// overlay is b2bua.Config.Overlay. A call that is not recorded is left alone.
func (s *sounds) overlay(trunk string, st media.Stream, answered time.Time, tap media.SessionTap) media.Overlay {
	x, ok := s.trunks[trunk]
	recorded, capturing := tap.(media.Capturing)
	if !ok || !capturing {
		return nil
	}
	hears := st.Side.Other().String()
	c := overlay.Config{Formats: st.Formats, Secure: st.Secure, Epoch: answered, Since: st.At, Capturing: recorded.Capturing, Counts: &s.counts}
	if x.beepTo == hears || x.beepTo == "both" {
		c.Beep = x.beep
	}
	if x.announceTo == hears || x.announceTo == "both" {
		c.Announcement = x.announcement
	}
	if c.Beep == nil && c.Announcement == nil {
		return nil
	}
	return overlay.New(c)
}
