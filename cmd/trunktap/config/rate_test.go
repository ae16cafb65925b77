package config

import (
	"fmt"
	"testing"
)

// TestSampleRate: what a trunk has where the file says nothing, or leaves it open.
func TestSampleRate(t *testing.T) {
	for _, tt := range []struct {
		lines []string
		more  string
		want  int
	}{
		{[]string{"enabled: true"}, "", 0},
		{[]string{"sample_rate: auto"}, "", 0},
		{[]string{"sample_rate: 8000"}, "", 8000},
		{[]string{"sample_rate: 16000", "format: flac"}, "", 16000},
		{[]string{"sample_rate: 48000", "format: wav-pcm16"}, "", 48000},
		{[]string{"format: wav-pcma"}, "", 8000},
		{[]string{"encode: deferred"}, "", 8000},
		{[]string{"encode: {mode: deferred, as: flac}"}, "", 0},
		{[]string{"encode: {mode: live, as: wav-pcmu}", "sample_rate: 48000"}, "", 48000},
		{[]string{"enabled: true"}, "stations: [{user: a, recording: {format: wav-pcmu}}]\n", 8000},
		{[]string{"enabled: true"}, "stations: [{user: a, recording: {format: wav-pcmu, enabled: false}}]\n", 0},
		{[]string{"format: wav-pcmu", "enabled: false", "sample_rate: 48000"}, "", 48000},
	} {
		t.Run(fmt.Sprint(tt.lines, tt.more), func(t *testing.T) {
			c := mustParse(t, recording(tt.lines...)+tt.more)
			if got := c.Trunks[0].Recording.SampleRate; got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
	if r := Default().Trunks[0].Recording; r.SampleRate != 0 || r.LevelControl {
		t.Errorf("%+v", r)
	}
}
