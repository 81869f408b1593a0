import { guarantees } from "../../support/clientSuite.ts"
import { aiServed, aiSimulated, clientServed, clientSimulated } from "../../support/ways.ts"

// The same guarantees, whichever way in: under TestClock, and over real HTTP.
for (const way of [clientSimulated, aiSimulated, clientServed, aiServed]) guarantees(way)
