import { guarantees } from "../../support/clientSuite.ts"
import { aiSdkServed, middlewareServed } from "../../support/ways.ts"

// What every way into the governor guarantees, for the middlewares of the SDKs.
for (const way of [middlewareServed, aiSdkServed]) guarantees(way)
