package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// consume makes sure that the durable consumer is there and read, and returns
// how many messages are still to come.
func (s *Source) consume(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if s.consuming != nil {
		info, err := s.consumer.Info(ctx)
		if err == nil {
			return info.NumPending + uint64(info.NumAckPending), nil
		}
		if !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return 0, fmt.Errorf("ask for the consumer: %w", err)
		}
		s.stopConsuming()
	}
	js, err := jetstream.New(s.nc)
	if err != nil {
		return 0, fmt.Errorf("use JetStream: %w", err)
	}
	consumer, err := s.bind(ctx, js)
	if err != nil {
		return 0, err
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask for the consumer: %w", err)
	}
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		meta, err := m.Metadata()
		if err != nil {
			s.failed(fmt.Errorf("a message without metadata: %w", err))
			return
		}
		s.hand(message{payload: m.Data(), meta: meta, ack: m.Ack})
	}, jetstream.PullMaxMessages(1), jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { s.failed(err) }))
	if err != nil {
		return 0, fmt.Errorf("read the consumer: %w", err)
	}
	s.consumer, s.consuming = consumer, consuming
	return info.NumPending + uint64(info.NumAckPending), nil
}

// bind returns the durable consumer, made or brought up to date. One message
// is under way at a time: a second one that overtakes an unconfirmed first
// would be out of order.
func (s *Source) bind(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
	c, err := js.Consumer(ctx, s.cfg.Stream, s.cfg.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		start := time.Now().Add(-s.cfg.MaxAge)
		c, err = js.CreateConsumer(ctx, s.cfg.Stream, jetstream.ConsumerConfig{
			Durable: s.cfg.Durable, FilterSubjects: s.cfg.Subjects, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: ackWait, MaxAckPending: 1, DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &start,
		})
		if err != nil {
			return nil, fmt.Errorf("make the durable consumer: %w", err)
		}
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the stream and its consumer: %w", err)
	}
	cfg := c.CachedInfo().Config
	if cfg.AckWait == ackWait && cfg.MaxAckPending == 1 && slices.Equal(cfg.FilterSubjects, s.cfg.Subjects) {
		return c, nil
	}
	cfg.AckWait, cfg.MaxAckPending, cfg.FilterSubject, cfg.FilterSubjects = ackWait, 1, "", s.cfg.Subjects
	if c, err = js.UpdateConsumer(ctx, s.cfg.Stream, cfg); err != nil {
		return nil, fmt.Errorf("bring the durable consumer up to date: %w", err)
	}
	return c, nil
}

// stopConsuming ends the reading; a message that is under way comes again.
func (s *Source) stopConsuming() {
	if s.consuming != nil {
		s.consuming.Stop()
		s.consuming = nil
	}
}
