/** Opens the store of a floodgate's budget: one of the user's, Redis, or memory. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { RedisMissingError } from "./errors.ts"
import type { Options } from "./options.ts"

/** The used part of `@floodgate/redis`. */
interface RedisPackage {
  readonly layerStoreUrl: (options: Exclude<Options["redis"], string | undefined>) => Layer.Layer<never>
}

/** Not a literal, so that neither the compiler nor a bundler needs the package where nobody uses it. */
const redisPackage: string = "@floodgate/redis"

export const layerStore = ({ redis, store }: Options): Layer.Layer<never, RedisMissingError> => {
  if (store !== undefined) return store
  if (redis === undefined) return Layer.empty
  const load = Effect.tryPromise({
    try: (): Promise<RedisPackage> => import(/* @vite-ignore */ redisPackage),
    catch: (cause) => new RedisMissingError(cause)
  })
  const options = typeof redis === "string" ? { url: redis } : redis
  return Layer.unwrap(Effect.map(load, ({ layerStoreUrl }) => layerStoreUrl(options)))
}
