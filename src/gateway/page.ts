/** The live page. */
import type * as Budget from "../Budget.ts"
import * as Effect from "effect/Effect"
import type { ServerResponse } from "node:http"
import type { Activity, Journal } from "./activity.ts"
import type { Upstreams } from "./routes.ts"

export interface Parts {
  readonly activity: Activity
  readonly budget: Budget.TokenBudget["Service"]
  readonly journal: Journal | undefined
  readonly upstreams: Upstreams
}

export const make = (_parts: Parts): Effect.Effect<(path: string, response: ServerResponse) => void> =>
  Effect.succeed((_path, response) => void response.writeHead(404).end())
