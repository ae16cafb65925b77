package srtp

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// ffmpeg has an SRTP of its own, of the two suites of RFC 4568 with 128-bit keys.
func ffmpegOr(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed: SRTP is not checked against it")
	}
}

// twoPorts opens an even port and the next one.
func twoPorts(t *testing.T) (rtp, rtcp *net.UDPConn) {
	t.Helper()
	for range 100 {
		a, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		port := a.LocalAddr().(*net.UDPAddr).Port
		b, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port + 1})
		if err == nil && port%2 == 0 {
			t.Cleanup(func() { _, _ = a.Close(), b.Close() }) // closed by a test already, perhaps
			return a, b
		}
		_ = a.Close() // the pair does not fit
		if err == nil {
			_ = b.Close()
		}
	}
	t.Fatal("no pair of ports")
	return nil, nil
}

func TestFromFFmpeg(t *testing.T) {
	ffmpegOr(t)
	for s, name := range map[Suite]string{
		AESCM128SHA1x80: "AES_CM_128_HMAC_SHA1_80",
		AESCM128SHA1x32: "SRTP_AES128_CM_HMAC_SHA1_32", // by its other name it shortens the tag of RTCP too, unlike RFC 4568 section 6.2.2
	} {
		t.Run(s.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			rtp, rtcp := twoPorts(t)
			cmd := exec.CommandContext(ctx, "ffmpeg", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "sine=frequency=440:duration=8:sample_rate=8000",
				"-c:a", "pcm_s16be", "-ar", "8000", "-f", "rtp", "-seq", "65530",
				"-srtp_out_suite", name, "-srtp_out_params", inline30, "srtp://"+rtp.LocalAddr().String())
			var log bytes.Buffer
			cmd.Stderr = &log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			u := unprotector(t, line(s, testKey(s, 1)))
			b, samples := make([]byte, 2048), []byte(nil)
			if err := rtp.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
				t.Fatal(err)
			}
			for len(samples) < 2*8000 {
				n, err := rtp.Read(b)
				if err != nil {
					t.Fatalf("%v\n%s", err, log.String())
				}
				plain, err := u.RTP(b, b[:n], noon)
				if err != nil {
					t.Fatalf("packet %d: %v", u.Counts().RTP, err)
				}
				samples = append(samples, plain[12:]...)
			}
			if err := rtcp.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := rtcp.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := u.RTCP(b, b[:n], noon); err != nil {
				t.Errorf("RTCP: %v", err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("ffmpeg: %v\n%s", err, log.String())
			}
			if r := toneShare(samples, binary.BigEndian, 440); r < 0.99 {
				t.Errorf("%.3f of what came is the tone", r)
			}
		})
	}
}

// toneShare is how much of the power of samples at 8 kHz lies at a frequency.
func toneShare(b []byte, order binary.ByteOrder, hz float64) float64 {
	var re, im, power float64
	n := len(b) / 2
	for i := range n {
		v := float64(int16(order.Uint16(b[2*i:])))
		sin, cos := math.Sincos(2 * math.Pi * hz * float64(i) / 8000)
		re, im, power = re+v*cos, im+v*sin, power+v*v
	}
	return (re*re + im*im) * 2 / (float64(n) * power)
}

func TestToFFmpeg(t *testing.T) {
	ffmpegOr(t)
	s := AESCM128SHA1x80
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	rtp, rtcp := twoPorts(t) // free for ffmpeg a moment later
	port := rtp.LocalAddr().(*net.UDPAddr).Port
	file := filepath.Join(t.TempDir(), "in.sdp")
	text := fmt.Sprintf("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio %d RTP/SAVP 96\r\na=rtpmap:96 L16/8000/1\r\na=crypto:%s\r\n", port, line(s, testKey(s, 1)).Attribute())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := rtp.Close(); err != nil {
		t.Fatal(err)
	}
	if err := rtcp.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "ffmpeg", "-nostdin", "-loglevel", "error", "-protocol_whitelist", "file,udp,rtp,srtp,crypto",
		"-i", file, "-t", "0.5", "-f", "s16le", "-")
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	p, tick := protector(t, line(s, testKey(s, 1))), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for listens := 0; listens < 3; { // it would not know the rollover of a stream that it missed the wrap of
		select {
		case err := <-done:
			t.Fatalf("%v\n%s", err, log.String())
		case <-tick.C:
		}
		if _, err := c.Write([]byte{0}); err != nil {
			listens = 0
		} else {
			listens++
		}
	}
	for index := uint64(65500); ; index++ { // over a wrap, until ffmpeg has enough
		select {
		case err := <-done:
			if err != nil || out.Len() < 4000 {
				t.Fatalf("%v, %d bytes\n%s", err, out.Len(), log.String())
			}
			if r := toneShare(out.Bytes(), binary.LittleEndian, 440); r < 0.99 {
				t.Errorf("%.3f of what came is the tone", r)
			}
			return
		case <-tick.C:
		}
		wire := mustProtect(t, p, tonePacket(index))
		_, _ = c.Write(wire) // refused until ffmpeg listens
	}
}

// tonePacket is 20 ms of 440 Hz in L16 at 8 kHz.
func tonePacket(index uint64) []byte {
	b := append(rtpPacket(9, index)[:12], make([]byte, 320)...)
	b[1] = 96
	for i := range 160 {
		v := 8000 * math.Sin(2*math.Pi*440*float64(index*160+uint64(i))/8000)
		binary.BigEndian.PutUint16(b[12+2*i:], uint16(int16(v)))
	}
	return b
}
