import { guarantees } from "../support/clientSuite.ts"
import { spoken } from "../support/spoken.ts"
import {
  aiSdkServed,
  aiServed,
  aiSimulated,
  clientServed,
  clientSimulated,
  fetchServed,
  middlewareServed
} from "../support/ways.ts"

// The same guarantees, whichever way in: under TestClock, and over real HTTP.
const ways = [clientSimulated, aiSimulated, clientServed, aiServed, middlewareServed, aiSdkServed]
for (const way of [...ways, ...spoken.map(fetchServed)]) guarantees(way)
