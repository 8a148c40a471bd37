<?php
/*
 * This file is part of the shop.
 *
 * (c) Example Traders. For the full copyright and license information, view the LICENSE file.
 */
declare(strict_types=1);

namespace Shop\Checkout;

use Shop\Cart;
use function Shop\Support\money;

require_once __DIR__ . '/vendor/autoload.php';

const LARGEST_ORDER = 500;

/**
 * Takes an order from the cart to the bank.
 *
 * @author Somebody
 */
#[Service]
final class Checkout implements Payable
{
    use LogsEverything;

    private const ATTEMPTS = 3;

    private array $listeners = [];

    public function __construct(private Cart $cart) {}

    /**
     * Charges the customer's card and {@see Receipt::send() sends a receipt}.
     *
     * @param int $cents what to charge
     * @return Receipt what the customer gets
     */
    #[Transactional, Retry(times: 3)]
    public function charge(int $cents): Receipt
    {
        foreach ($this->listeners as $listener) {
            $listener($cents);
        }
        return $this->bank->charge($this->cart->customer(), $cents);
    }

    // Refunds an order that never arrived
    private function refund(Order $order): void
    {
        $this->bank->refund($order->payment());
        $order->close();
    }

    /** {@inheritdoc} */
    public function total(): int
    {
        $sum = array_sum($this->cart->prices());
        return $sum + $this->shipping();
    }
}

/** Whatever a customer is able to pay for. */
interface Payable
{
    /** Adds up what the customer has to pay. */
    public function total(): int;
}

/** Writes a line to the log for every payment. */
trait LogsEverything
{
    /** Writes one line with the time in front. */
    protected function log(string $line): void
    {
        $time = date('c');
        error_log("$time $line");
    }
}

/** The states that an order goes through. */
enum State: string
{
    case Open = 'open';
    case Paid = 'paid';

    /** Tells whether nothing more can happen to it. */
    public function isFinal(): bool
    {
        $final = [self::Paid];
        return in_array($this, $final);
    }
}

/**
 * Formats a price for the language of the visitor.
 */
function price(int $cents, string $locale = 'en'): string
{
    $format = new \NumberFormatter($locale, \NumberFormatter::CURRENCY);
    return $format->format($cents / 100);
}

$checkout = new Checkout(Cart::current());
?>
<body>
  <h1>Your order</h1>
  <?php foreach ($checkout->lines() as $line): ?>
    <p><?= htmlspecialchars($line->name) ?></p>
  <?php endforeach; ?>
</body>
</html>
