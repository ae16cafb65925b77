// SPDX-License-Identifier: Apache-2.0
//
// The relay's program at the ingress of an interface. It takes the RTP of flows
// that the relay has handed over: rewrites the header, sends the packet on and
// leaves a copy in a ring. Every other packet, and every one that is unusual in
// any way, goes on to the stack and so to the relay's sockets.
//
// The layouts of struct flow, struct key and struct record are those of
// layout_linux.go. Addresses and ports are in network order, the rest in the host's.

#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define TCX_NEXT -1 // of enum tcx_action_base, newer than the oldest headers

#define AF_INET 2
#define AF_INET6 10

#define PACKET_HOST 0
#define IP_DF bpf_htons(0x4000)
#define TTL 64
#define RTP_BYTES 12

#define SHORT_BYTES 176 // 20 ms of G.711 is 172
#define LONG_BYTES 1488

#define FLOW_RECORD 1 // leave copies in the ring
#define FLOW_LOCAL 2  // the destination is an address of this host

// key is where packets come to. IPv4 addresses are mapped into IPv6.
struct key {
	__be32 addr[4];
	__be16 port;
	__u16 zero;
};

// flow is what comes from one side of a stream.
struct flow {
	// written by the owner before the flow is found under its key, flags and
	// handled at any time
	__u32 flags;
	__u32 ring;
	struct key local;
	struct key source;
	struct key out_source;
	struct key out_dest;
	__u32 ssrc;
	__u32 ifindex; // where to send; unused with FLOW_LOCAL
	__u32 mtu;     // of the way there: larger datagrams are left to the stack
	__u32 tos;
	__u32 next_hop_family;
	__be32 next_hop[4];
	__u32 sequence; // tells uses of this place apart
	__u64 handled;  // mark of the last packet that the sockets' side is through with
	__u64 told;    // lost copies that the owner has accounted for
	__u64 cookie[6]; // the owner's

	// written by the program
	__u64 passed;  // mark of the last packet that was left to the sockets
	__u32 taken;   // set once nothing is left to the sockets any more
	__u32 unfit;   // packets of the source that were left to the sockets nevertheless
	__u64 packets;
	__u64 bytes;
	__u64 lost;    // copies that did not fit the ring
	__u64 last_ns; // CLOCK_MONOTONIC
	__u64 spare[2];
};
_Static_assert(sizeof(struct flow) == 256, "layout_linux.go");

// cpu lets the owner wait for programs that run.
struct cpu {
	__u64 enter, leave;
	__u64 line[14];
};

struct record {
	__u64 at_ns; // CLOCK_MONOTONIC
	__u32 place; // of the flow
	__u32 sequence;
	__u32 lost; // copies of the flow lost before this one, modulo 2^32
	__u32 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct key);
	__type(value, __u32);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

// The range of ports that the owner's flows lie in.
const volatile __u16 port_min = 0, port_max = 0;

// packet is what is known of one that may belong to a flow.
struct packet {
	struct key local, source;
	__u32 rtp;   // where the UDP payload begins
	__u32 bytes; // its length
	__u32 v6;
};

#define same(a, b) ((a)->addr[0] == (b)->addr[0] && (a)->addr[1] == (b)->addr[1] && \
		    (a)->addr[2] == (b)->addr[2] && (a)->addr[3] == (b)->addr[3] && (a)->port == (b)->port)

// pull makes the first n bytes of a packet readable in place.
static __always_inline void pull(struct __sk_buff *skb, __u32 n)
{
	if ((void *)(long)skb->data + n > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, n);
}

// at points into a packet. A pointer that is out of bounds must not be followed.
#define at(skb, n) ((void *)(long)(skb)->data + (n))
#define inside(skb, end) ((void *)(end) <= (void *)(long)(skb)->data_end)

static __always_inline int wanted(__be16 port)
{
	__u16 p = bpf_ntohs(port);

	return p >= port_min && p <= port_max;
}

// trim takes off what a link added to make short frames longer.
static __always_inline int trim(struct __sk_buff *skb, __u32 bytes)
{
	return skb->len == bytes ? 0 : bpf_skb_change_tail(skb, bytes, 0);
}

static __always_inline int parse4(struct __sk_buff *skb, struct packet *p)
{
	const __u32 head = sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct udphdr);
	struct iphdr *ip;
	struct udphdr *udp;
	__u32 udp_bytes;

	pull(skb, head);
	ip = at(skb, sizeof(struct ethhdr));
	udp = (void *)(ip + 1);
	if (!inside(skb, udp + 1))
		return -1;
	if (ip->ihl != 5 || ip->version != 4 || ip->protocol != IPPROTO_UDP || ip->frag_off & ~IP_DF)
		return -1;
	if (!wanted(udp->dest))
		return -1;
	udp_bytes = bpf_ntohs(udp->len);
	if (udp_bytes < sizeof(*udp) + RTP_BYTES || sizeof(struct ethhdr) + sizeof(*ip) + udp_bytes > skb->len || bpf_ntohs(ip->tot_len) != udp_bytes + sizeof(*ip))
		return -1;
	p->local.addr[2] = p->source.addr[2] = bpf_htonl(0xffff);
	p->local.addr[3] = ip->daddr;
	p->source.addr[3] = ip->saddr;
	p->local.port = udp->dest;
	p->source.port = udp->source;
	p->rtp = head;
	p->bytes = udp_bytes - sizeof(*udp);
	return 0;
}

static __always_inline int parse6(struct __sk_buff *skb, struct packet *p)
{
	const __u32 head = sizeof(struct ethhdr) + sizeof(struct ipv6hdr) + sizeof(struct udphdr);
	struct ipv6hdr *ip;
	struct udphdr *udp;
	__u32 udp_bytes;

	pull(skb, head);
	ip = at(skb, sizeof(struct ethhdr));
	udp = (void *)(ip + 1);
	if (!inside(skb, udp + 1))
		return -1;
	if (ip->version != 6 || ip->nexthdr != IPPROTO_UDP || !wanted(udp->dest))
		return -1;
	udp_bytes = bpf_ntohs(udp->len);
	if (udp_bytes < sizeof(*udp) + RTP_BYTES || sizeof(struct ethhdr) + sizeof(*ip) + udp_bytes > skb->len || bpf_ntohs(ip->payload_len) != udp_bytes)
		return -1;
	if (!udp->check) // RFC 8200 section 8.1: the stack refuses it
		return -1;
	__builtin_memcpy(p->local.addr, &ip->daddr, 16);
	__builtin_memcpy(p->source.addr, &ip->saddr, 16);
	p->local.port = udp->dest;
	p->source.port = udp->source;
	p->rtp = head;
	p->bytes = udp_bytes - sizeof(*udp);
	p->v6 = 1;
	return 0;
}

// mark names a packet by its sequence number and its RTP timestamp. Never 0.
static __always_inline __u64 mark(const __u8 *rtp)
{
	__be16 seq;
	__be32 ts;

	__builtin_memcpy(&seq, rtp + 2, 2);
	__builtin_memcpy(&ts, rtp + 4, 4);
	return 1ULL << 48 | (__u64)bpf_ntohs(seq) << 32 | bpf_ntohl(ts);
}

// is_rtp tells whether a packet is RTP of the flow's SSRC. What may be RTCP (RFC
// 5761 section 4), or is shorter than it says, is not.
static __always_inline int is_rtp(struct __sk_buff *skb, const struct packet *p, const struct flow *f, const __u8 *rtp)
{
	__u32 need = RTP_BYTES + 4 * (rtp[0] & 0x0f);
	__be32 ssrc;
	__be16 words;

	__builtin_memcpy(&ssrc, rtp + 8, 4);
	if (rtp[0] >> 6 != 2 || (rtp[1] >= 192 && rtp[1] <= 223) || bpf_ntohl(ssrc) != f->ssrc)
		return 0;
	if (rtp[0] & 0x10) {
		if (p->bytes < need + 4 || bpf_skb_load_bytes(skb, p->rtp + need + 2, &words, 2))
			return 0;
		need += 4 + 4 * bpf_ntohs(words);
	}
	return p->bytes >= need;
}

// takes tells whether the flow is the program's. It becomes that at the first
// packet before which all packets left to the sockets are through, so that none
// overtakes another.
static __always_inline int takes(struct flow *f, __u64 packet)
{
	volatile struct flow *v = f;

	if (v->taken)
		return 1;
	if (v->passed && v->passed == v->handled) {
		v->taken = 1;
		return 1;
	}
	v->passed = packet;
	return 0;
}

// copy_of reserves a record of a fixed room, as the verifier wants it, and fills it.
static __always_inline int copy_of(struct __sk_buff *skb, const struct packet *p, struct flow *f, __u32 place, __u64 now,
				   void *ring, const __u32 room)
{
	__u32 bytes = p->bytes;
	struct record *r = bpf_ringbuf_reserve(ring, sizeof(*r) + room, 0);

	if (!r)
		return -1;
	r->at_ns = now;
	r->place = place;
	r->sequence = f->sequence;
	r->lost = f->lost;
	r->bytes = bytes;
	if (bytes < RTP_BYTES || bytes > room || bpf_skb_load_bytes(skb, p->rtp, r + 1, bytes)) {
		bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
		return -1;
	}
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline void record(struct __sk_buff *skb, const struct packet *p, struct flow *f, __u32 place, __u64 now)
{
	void *ring = bpf_map_lookup_elem(&rings, &f->ring);
	int failed = -1;

	if (ring && p->bytes <= SHORT_BYTES)
		failed = copy_of(skb, p, f, place, now, ring, SHORT_BYTES);
	else if (ring)
		failed = copy_of(skb, p, f, place, now, ring, LONG_BYTES);
	if (failed)
		__sync_fetch_and_add(&f->lost, 1);
}

// rewrite4 puts the flow's way out into the header. The checksum helpers know
// what a checksum that is still to be completed by hardware needs.
static __always_inline int rewrite4(struct __sk_buff *skb, const struct flow *f)
{
	const __u32 ip_at = sizeof(struct ethhdr), check = ip_at + sizeof(struct iphdr) + offsetof(struct udphdr, check);
	struct {
		struct iphdr ip;
		__be16 source, dest;
	} h, *was;
	__be32 old[2], new[2] = { f->out_source.addr[3], f->out_dest.addr[3] };
	__u32 old_ports, new_ports = f->out_source.port | (__u32)f->out_dest.port << 16;
	__s64 sum;

	pull(skb, ip_at + sizeof(h));
	was = at(skb, ip_at);
	if (!inside(skb, was + 1))
		return -1;
	h = *was;
	old[0] = h.ip.saddr;
	old[1] = h.ip.daddr;
	old_ports = h.source | (__u32)h.dest << 16;
	h.ip.tos = f->tos;
	h.ip.ttl = TTL;
	h.ip.check = 0;
	h.ip.saddr = new[0];
	h.ip.daddr = new[1];
	h.source = f->out_source.port;
	h.dest = f->out_dest.port;
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&h.ip, sizeof(h.ip), 0);
	sum = (sum & 0xffff) + (sum >> 16);
	h.ip.check = ~(sum + (sum >> 16));
	sum = bpf_csum_diff(old, sizeof(old), new, sizeof(new), 0);
	if (bpf_l4_csum_replace(skb, check, 0, sum, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) ||
	    bpf_l4_csum_replace(skb, check, old_ports, new_ports, BPF_F_MARK_MANGLED_0 | 4))
		return -1;
	return bpf_skb_store_bytes(skb, ip_at, &h, sizeof(h), 0);
}

static __always_inline int rewrite6(struct __sk_buff *skb, const struct flow *f)
{
	const __u32 ip_at = sizeof(struct ethhdr), check = ip_at + sizeof(struct ipv6hdr) + offsetof(struct udphdr, check);
	struct {
		struct ipv6hdr ip;
		__be16 source, dest;
	} h, *was;
	__be32 old[8];
	__u32 old_ports, new_ports = f->out_source.port | (__u32)f->out_dest.port << 16;
	__s64 sum;

	pull(skb, ip_at + sizeof(h));
	was = at(skb, ip_at);
	if (!inside(skb, was + 1))
		return -1;
	h = *was;
	__builtin_memcpy(old, &h.ip.saddr, 32);
	old_ports = h.source | (__u32)h.dest << 16;
	*(__be32 *)&h.ip = bpf_htonl(6u << 28 | f->tos << 20);
	h.ip.hop_limit = TTL;
	__builtin_memcpy(&h.ip.saddr, f->out_source.addr, 16);
	__builtin_memcpy(&h.ip.daddr, f->out_dest.addr, 16);
	h.source = f->out_source.port;
	h.dest = f->out_dest.port;
	sum = bpf_csum_diff(old, 32, (__be32 *)&h.ip.saddr, 32, 0);
	if (bpf_l4_csum_replace(skb, check, 0, sum, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) ||
	    bpf_l4_csum_replace(skb, check, old_ports, new_ports, BPF_F_MARK_MANGLED_0 | 4))
		return -1;
	return bpf_skb_store_bytes(skb, ip_at, &h, sizeof(h), 0);
}

// send gives the rewritten packet to the way out. The kernel resolves the
// neighbour, and keeps the packet while it does.
static __always_inline int send(struct __sk_buff *skb, const struct flow *f)
{
	struct bpf_redir_neigh hop = { .nh_family = f->next_hop_family };

	if (f->flags & FLOW_LOCAL) {
		// What comes over lo brings its way to a local address along. It takes
		// another turn, so that captures show it going out.
		if (skb->ifindex == f->ifindex)
			return bpf_redirect(f->ifindex, 0);
		return bpf_redirect_neigh(f->ifindex, NULL, 0, 0);
	}
	__builtin_memcpy(hop.ipv6_nh, f->next_hop, 16);
	return bpf_redirect_neigh(f->ifindex, &hop, sizeof(hop), 0);
}

static __always_inline int forward(struct __sk_buff *skb, const struct packet *p)
{
	__u32 *found = bpf_map_lookup_elem(&places, &p->local), place;
	struct flow *f;
	__u8 rtp[RTP_BYTES];
	__u64 now;

	if (!found)
		return TCX_NEXT;
	place = *found;
	f = bpf_map_lookup_elem(&flows, &place);
	// The place may have been given to another flow since.
	if (!f || !same(&p->local, &f->local) || !same(&p->source, &f->source))
		return TCX_NEXT;
	if (bpf_skb_load_bytes(skb, p->rtp, rtp, sizeof(rtp)) || !is_rtp(skb, p, f, rtp) ||
	    p->rtp - sizeof(struct ethhdr) + p->bytes > f->mtu || p->bytes > LONG_BYTES) {
		__sync_fetch_and_add(&f->unfit, 1);
		return TCX_NEXT;
	}
	if (!takes(f, mark(rtp)))
		return TCX_NEXT;
	now = bpf_ktime_get_ns();
	if (trim(skb, p->rtp + p->bytes))
		return TCX_NEXT;
	if (p->v6 ? rewrite6(skb, f) : rewrite4(skb, f))
		return TCX_NEXT;
	f->last_ns = now;
	__sync_fetch_and_add(&f->packets, 1);
	__sync_fetch_and_add(&f->bytes, p->bytes);
	if (f->flags & FLOW_RECORD)
		record(skb, p, f, place, now);
	return send(skb, f);
}

SEC("tcx/ingress")
int relay(struct __sk_buff *skb)
{
	struct packet p = {};
	__u32 here = bpf_get_smp_processor_id();
	struct cpu *c;
	int verdict;

	// Tagged packets come again, untagged, through their VLAN's own interface.
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present || skb->gso_size)
		return TCX_NEXT;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (parse4(skb, &p))
			return TCX_NEXT;
	} else if (skb->protocol != bpf_htons(ETH_P_IPV6) || parse6(skb, &p)) {
		return TCX_NEXT;
	}
	c = bpf_map_lookup_elem(&cpus, &here);
	if (!c)
		return TCX_NEXT;
	// Whoever takes a flow away, then sees both numbers equal, knows that nothing
	// of the flow comes any more: this is a full barrier.
	if (__sync_fetch_and_add(&c->enter, 1) == ~0ULL)
		return TCX_NEXT;
	verdict = forward(skb, &p);
	__sync_fetch_and_add(&c->leave, 1);
	return verdict;
}

const char licence[] SEC("license") = "Apache-2.0";
