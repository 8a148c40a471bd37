package shapes

import math.{Pi, sqrt}

/** The shapes that can be drawn on a page. */
enum Shape:
  case Circle(radius: Double)
  case Square(side: Double)

  /** Computes how much paper a shape covers. */
  def area: Double = this match
    case Circle(radius) => Pi * radius * radius
    case Square(side) => side * side

/** Draws shapes on a page of paper. */
class Printer(page: Page):
  private var drawn = 0

  /** Draws a shape in the middle of the page. */
  def print(shape: Shape): Unit =
    val scale = sqrt(page.area / shape.area)
    page.draw(shape, scale)
    drawn += 1
end Printer

/** Turns lists of shapes into pictures. */
object Pictures:
  /** Sorts shapes by the paper that they cover. */
  extension (shapes: List[Shape])
    def sorted: List[Shape] =
      val areas = shapes.map(_.area)
      shapes.sortBy(_.area)

/** Writes a shape in a form that people can read. */
given Show[Shape] with
  def show(shape: Shape): String =
    val name = shape.productPrefix
    s"$name of ${shape.area}"

/** Mirrors a shape at the left edge of the page. */
def mirrored(shape: Shape): Shape =
  val copy = shape
  copy

@main def draw(): Unit =
  val printer = Printer(Page.a4)
  printer.print(Shape.Circle(2))
