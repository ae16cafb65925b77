package config

import "fmt"

// narrow is the rate of the companded formats, in Hz.
const narrow = 8000

// Companded tells whether a format is G.711, which has one rate.
func Companded(format string) bool { return format == "wav-pcmu" || format == "wav-pcma" }

// checkRates completes the rates of trunks and demands that each format of their
// recordings can have them: a call has one rate, whatever recordings it has.
func (d *decoder) checkRates(c *Config) {
	for _, x := range c.recordings() {
		r, path := x.TrunkRecording, x.path
		if !r.Enabled {
			continue
		}
		at, format := d.compandedOf(c, r, path)
		switch {
		case format == "" || r.SampleRate == narrow:
		case !d.given(path + ".sample_rate"):
			r.SampleRate = narrow
		case at == path+".format":
			d.faultAt(path+".sample_rate", fmt.Sprintf("%s has %d samples a second", format, narrow), "8000, or another format")
		case at == path+".encode.as":
			d.faultAt(path+".sample_rate", fmt.Sprintf("%s of encode.as has %d samples a second", format, narrow),
				"8000, or encode.as: wav-pcm16, or encode.as: flac")
		default:
			d.faultAt(path+".sample_rate", fmt.Sprintf("recordings of stations have the rate of the trunk, and %s of %s has %d", format, at, narrow),
				"8000, or another format there")
		}
	}
}

// compandedOf returns the companded format that a trunk's calls may be recorded
// in, and its key; empty: none.
func (d *decoder) compandedOf(c *Config, r *TrunkRecording, path string) (at, format string) {
	if Companded(r.Format) {
		return path + ".format", r.Format
	}
	if r.Encode.Mode == "deferred" && Companded(r.Encode.As) {
		return path + ".encode.as", r.Encode.As
	}
	for i := range c.Stations {
		if s := &c.Stations[i].Recording; s.Enabled && Companded(s.Format) {
			return fmt.Sprintf("stations[%d]", i), s.Format
		}
	}
	return "", ""
}
