// Makes the vectors of this folder out of speech, with the encoders and decoders of
// libspandsp, opencore-amr, vo-amrwbenc and bcg729, none of which is needed otherwise
// to test:
//
//	cc -o /tmp/vectors vectors.c -lspandsp -lopencore-amrnb -lvo-amrwbenc -lbcg729 -lm
//	speak() { espeak-ng -v $1 -s 165 --stdout "$2" | sox -t wav - -r $3 -c 1 -b 16 -t raw -; }
//	(speak en-us "The north wind and the sun." 8000; head -c 16000 /dev/zero; speak en-us "Seven." 8000) >8k.raw
//	speak en-us "The north wind and the sun." 16000 >16k.raw
//	/tmp/vectors 8k.raw 16k.raw
//
// A noise of a few units is added, so that silence is not digital.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bcg729/decoder.h>
#include <bcg729/encoder.h>
#include <opencore-amrnb/interf_enc.h>
#include <spandsp.h>
#include <vo-amrwbenc/enc_if.h>

static uint32_t seed = 1;

static int load(const char *name, int16_t *pcm, int most)
{
	FILE *f = fopen(name, "rb");
	if (f == NULL)
		exit(1);
	int n = (int)fread(pcm, 2, (size_t)most, f);
	fclose(f);
	for (int i = 0; i < n; i++) {
		seed = seed * 1664525 + 1013904223;
		pcm[i] = (int16_t)(pcm[i] / 2 + (int)(seed >> 28) - 8);
	}
	return n;
}

static FILE *create(const char *name)
{
	FILE *f = fopen(name, "wb");
	if (f == NULL)
		exit(1);
	return f;
}

// g726 writes 4000 samples at each rate, the first sample in the low bits.
static void g726(const int16_t *pcm)
{
	uint8_t octets[4000];
	char name[32];
	for (int rate = 16; rate <= 40; rate += 8) {
		g726_state_t *s = g726_init(NULL, rate * 1000, G726_ENCODING_LINEAR, G726_PACKING_RIGHT);
		int n = g726_encode(s, octets, pcm, 4000);
		snprintf(name, sizeof name, "g726-%d.bin", rate);
		FILE *f = create(name);
		fwrite(octets, 1, (size_t)n, f);
		fclose(f);
		int16_t out[4000];
		s = g726_init(NULL, rate * 1000, G726_ENCODING_LINEAR, G726_PACKING_RIGHT);
		n = g726_decode(s, out, octets, n);
		snprintf(name, sizeof name, "g726-%d.s16le", rate);
		f = create(name);
		fwrite(out, 2, (size_t)n, f);
		fclose(f);
	}
}

// amr writes storage files (RFC 4867 section 5), the mode changing every 8 frames.
static void amr(const int16_t *pcm, int n)
{
	FILE *f = create("speech.amr");
	fputs("#!AMR\n", f);
	void *e = Encoder_Interface_init(1);
	for (int i = 0; i + 160 <= n; i += 160) {
		uint8_t frame[64];
		int len = Encoder_Interface_Encode(e, (enum Mode)(i / 1280 % 8), pcm + i, frame, 0);
		fwrite(frame, 1, (size_t)len, f);
	}
	fclose(f);
}

static void amrwb(const int16_t *pcm, int n)
{
	FILE *f = create("speech.awb");
	fputs("#!AMR-WB\n", f);
	void *e = E_IF_init();
	for (int i = 0; i + 320 <= n; i += 320) {
		uint8_t frame[64];
		int len = E_IF_encode(e, i / 2560 % 9, pcm + i, frame, 1);
		fwrite(frame, 1, (size_t)len, f);
	}
	fclose(f);
}

// g729 writes frames, each behind an octet with its length (10, 2 for SID, 0 for
// none), and what the reference makes of them.
static void g729(const int16_t *pcm, int n)
{
	bcg729EncoderChannelContextStruct *e = initBcg729EncoderChannel(1);
	bcg729DecoderChannelContextStruct *d = initBcg729DecoderChannel();
	FILE *bits = create("g729.bin"), *want = create("g729.s16le");
	for (int i = 0; i + 80 <= n; i += 80) {
		uint8_t frame[10], len;
		int16_t out[80];
		bcg729Encoder(e, pcm + i, frame, &len);
		bcg729Decoder(d, frame, len, len == 0, len == 2, 0, out);
		fputc(len, bits);
		fwrite(frame, 1, len, bits);
		fwrite(out, 2, 80, want);
	}
	fclose(bits);
	fclose(want);
}

int main(int count, char **names)
{
	static int16_t narrow[32000], wide[48000];
	if (count != 3)
		return 2;
	int n = load(names[1], narrow, 32000), w = load(names[2], wide, 48000);
	g726(narrow + 4000);
	amr(narrow, n);
	amrwb(wide, w);
	g729(narrow, n);
	return 0;
}
