/*
 * Copyright (C) 2024 Example Traders
 * SPDX-License-Identifier: Apache-2.0
 */
package traders
package routes

import scala.concurrent.Future
import traders.http._

/** Finds the way through a network of streets.
  *
  * {{{
  * val router = new Router(network)
  * }}}
  *
  * @param network the streets
  */
@deprecated("use Planner", "2.0")
class Router[F[_]: Monad](network: Network) extends Planner with Logging {
  private val cache = mutable.Map.empty[Query, Route]

  type Cost = Double

  /** How many routes were planned since the start. */
  lazy val planned: Int = {
    log.info("counting")
    cache.size
  }

  /** Plans the shortest route between two places.
    *
    * @param from where it starts
    * @return the route, or nothing where there is none
    */
  @throws[NoRoute]
  override def plan(from: Place, to: Place): Future[Option[Route]] = {
    val query = Query(from, to)
    cache.get(query).fold(search(query))(Future.successful)
  }

  // Forgets every route over a closed street
  private def forget(street: Street): Unit = {
    cache.filterInPlace((_, route) => !route.uses(street))
    log.info("forgotten")
  }
}

/** Builds routers for the cities we know. */
object Router {
  /** Builds the router of a city from its map. */
  def of(city: City): Router[IO] =
    val network = Network.load(city.map)
    new Router(network)
}

/** A way from one place to another. */
case class Route(streets: List[Street], length: Double)

/** Whatever is able to plan a route. */
trait Planner {
  /** Plans a route between two places. */
  def plan(from: Place, to: Place): Future[Option[Route]]
}

case object Nowhere extends Place("nowhere")
