<!DOCTYPE html>
<html>
<head><title>Basket of the little shop</title></head>
<?php
namespace Shop {
    use Shop\Cart;

    if (!function_exists('Shop\\weight')) {
        /** Adds up what the basket weighs. */
        function weight(Cart $cart): int
        {
            $grams = array_map(fn ($line) => $line->grams(), $cart->lines());
            return array_sum($grams);
        }
    }
}
?>
<body><p>Your basket is heavy.</p></body>
</html>
