/** The store over either client. `@floodgate/redis` uses the one that is installed; the tests have both. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Client from "../src/client.ts"
import * as Store from "../src/store.ts"

export const opens = { redis: Client.openRedis, ioredis: Client.openIoredis }

export type Name = keyof typeof opens

export const names = Object.keys(opens) as ReadonlyArray<Name>

export const store = (
  name: Name,
  url: string,
  prefix: string
): Effect.Effect<BudgetStore.Store, BudgetStore.StoreError, Scope.Scope> =>
  Effect.map(Client.connect(url, opens[name]), ({ send }) => Store.make(prefix, send))

export const layer = (name: Name, url: string, prefix: string, options?: BudgetStore.Options): Layer.Layer<never> =>
  Layer.unwrap(Effect.map(Effect.orDie(store(name, url, prefix)), (made) => BudgetStore.layer(made, options)))
