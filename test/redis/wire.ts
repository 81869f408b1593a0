import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PersistenceRedis from "effect/persistence/Redis"

type Send = PersistenceRedis.Redis["Service"]["send"]

/** Puts something around every command that goes to Redis. */
export const aroundSend = (around: (send: Send) => Send) =>
  Layer.effect(
    PersistenceRedis.Redis,
    Effect.map(PersistenceRedis.Redis, (redis) => ({ ...redis, send: around(redis.send) }))
  )
